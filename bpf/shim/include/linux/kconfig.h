/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stand-in for the kernel headers that BCC expects: it force-includes this file first. Types of the
 * running kernel are not here: a program's text brings those it names (collector/bpf/header.py).
 */
#pragma once
#include <linux/helpers.h>
