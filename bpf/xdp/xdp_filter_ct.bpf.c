// SPDX-License-Identifier: GPL-2.0-only
/*
 * The XDP packet filter with connection tracking, for rules that ask for it.
 */
#define NC_CONNTRACK
#include "xdp_filter.bpf.c"
