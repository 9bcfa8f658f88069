// SPDX-License-Identifier: GPL-2.0-only
/*
 * What shows whether a layer of the connect policy works: each program refuses one address out of
 * 127.0.0.0/8, picked at random, and nothing else.
 */
#define BPF_NO_PRESERVE_ACCESS_INDEX
#include <vmlinux.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* Network order. */
const volatile __u32 canary_address = 0;

SEC("cgroup/connect4")
int canary_cgroup(struct bpf_sock_addr *ctx)
{
	return ctx->user_ip4 != canary_address;
}

SEC("lsm/socket_connect")
int BPF_PROG(canary_lsm, struct socket *socket, struct sockaddr *address, int length)
{
	struct sockaddr_in to = {};

	if (length < (int)sizeof(to) || bpf_probe_read_kernel(&to, sizeof(to), address))
		return 0;
	return to.sin_addr.s_addr == canary_address ? -1 : 0; /* EPERM */
}

char LICENSE[] SEC("license") = "GPL";
