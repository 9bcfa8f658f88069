// SPDX-License-Identifier: GPL-2.0-only
/*
 * Captures in tc with connection tracking, for rules that ask for it.
 */
#define NC_CONNTRACK
#include "tc_capture.bpf.c"
