/* SPDX-License-Identifier: Apache-2.0 */
/* LINUX_VERSION_CODE comes from the command line, made from uname; BCC's helpers.h compares it. */
#pragma once
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
