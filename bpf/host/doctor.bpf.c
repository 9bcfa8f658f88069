// SPDX-License-Identifier: GPL-2.0-only
/*
 * A program for each thing that netctl asks of a kernel: loaded and attached one by one, in places that
 * nobody else uses, they show what this kernel takes. None of them does anything.
 */
#define BPF_NO_PRESERVE_ACCESS_INDEX
#include <vmlinux.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

SEC("xdp")
int try_xdp(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp.frags")
int try_xdp_frags(struct xdp_md *ctx)
{
	return XDP_PASS;
}

static long one_turn(__u32 turn, void *unused)
{
	return 0;
}

SEC("xdp")
int try_loop(struct xdp_md *ctx)
{
	return bpf_loop(2, one_turn, NULL, 0) == 2 ? XDP_PASS : XDP_ABORTED;
}

SEC("tc")
int try_tc(struct __sk_buff *skb)
{
	return -1; /* TC_ACT_UNSPEC */
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(try_sock_tracepoint, struct sock *sk, int sent, int flags)
{
	return 0;
}

SEC("fexit/inet_sendmsg")
int BPF_PROG(try_function_exit, struct socket *sock, struct msghdr *message, size_t size, int sent)
{
	return 0;
}

SEC("socket")
int try_packets(struct __sk_buff *skb)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
