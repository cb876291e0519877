/* SPDX-License-Identifier: Apache-2.0 */
/* Empty on purpose: linux/kconfig.h has all that is needed. */
#pragma once
