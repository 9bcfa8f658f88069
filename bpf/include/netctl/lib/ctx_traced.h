/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The seam between lib/ and a hook (ctx_xdp.h tells what it has), for programs that look on at another's packets: fentry
 * and fexit, which may read the kernel's memory, and neither change a packet nor ask for sockets.
 */
#ifndef NETCTL_LIB_CTX_H
#define NETCTL_LIB_CTX_H

#include <netctl/lib/bpf.h>

/* On the stack of whoever looks on. */
struct nc_traced {
	const void *data; /* where the frame is */
	__u32 readable;	  /* bytes there; those of further buffers are not read */
	__u32 length;	  /* of the whole frame */
};

#define nc_ctx struct nc_traced
#define NC_NO_SOCKETS

const volatile __u32 simulate; /* ruleset.h says what it is */

static __always_inline bool nc_ctx_is_direct(void)
{
	return false;
}

static __always_inline void *nc_ctx_data(const nc_ctx *ctx)
{
	return NULL;
}

static __always_inline void *nc_ctx_data_end(const nc_ctx *ctx)
{
	return NULL;
}

/* NULL: what a global function has to reckon with. */
static __always_inline long nc_ctx_load(nc_ctx *ctx, __u32 offset, void *to, __u32 size)
{
	if (!ctx || offset + size > ctx->readable)
		return -1;
	return bpf_probe_read_kernel(to, size, ctx->data + offset);
}

static __always_inline __u32 nc_ctx_length(nc_ctx *ctx)
{
	return ctx ? ctx->length : 0;
}

#include <netctl/lib/ctx_driver.h>

#endif
