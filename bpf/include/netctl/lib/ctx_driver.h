/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What packets are where a driver has them, for the seams to hooks there (ctx_xdp.h, which tells what each function is): frames
 * that the kernel has not touched yet. Included by them, behind nc_ctx.
 */
#ifndef NETCTL_LIB_CTX_DRIVER_H
#define NETCTL_LIB_CTX_DRIVER_H

#include <netctl/lib/bpf.h>

static __always_inline __u32 nc_ctx_mark(const nc_ctx *ctx)
{
	return 0;
}

static __always_inline bool nc_ctx_has_ether(const nc_ctx *ctx)
{
	return true;
}

static __always_inline bool nc_ctx_vlan(const nc_ctx *ctx, __u16 *tci)
{
	return false;
}

static __always_inline bool nc_ctx_is_padded(void)
{
	return false;
}

static __always_inline bool nc_ctx_is_super(const nc_ctx *ctx)
{
	return false;
}

#endif
