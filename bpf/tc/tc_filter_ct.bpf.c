// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tc classifier with connection tracking, for rules that ask for it.
 */
#define NC_CONNTRACK
#include "tc_filter.bpf.c"
