/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the programs of trace http share that look at sockets while a system call is under way: whose it is, and whether
 * it is selected. Include bpf_core_read.h, bpf_endian.h and bpf_tracing.h before.
 */
#ifndef NETCTL_LIB_HTTP_CALLS_H
#define NETCTL_LIB_HTTP_CALLS_H

#include <netctl/lib/call_source.h>
#include <netctl/lib/http.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u8);
} pids SEC(".maps");

/* Sockets that carry TLS, as http_tls.bpf.c found. Made only where that is loaded. */
struct tls_socket {
	__u64 ssl; /* the last object of its library that spoke through it, and the process's id */
	__u32 pid;
	__u32 flags;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct tls_socket);
} tls_sockets SEC(".maps");

/* A call costs more than what is done here otherwise: where the kernel can, nothing is called. */
void *bpf_rdonly_cast(const void *object, __u32 type) __ksym __weak;

static __always_inline struct tcp_sock *tcp_of(struct sock *sk)
{
	if (!bpf_ksym_exists(bpf_rdonly_cast))
		return bpf_skc_to_tcp_sock(sk);
	if (sk->sk_protocol != IPPROTO_TCP || sk->sk_type != SOCK_STREAM)
		return NULL;
	return bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock));
}

static __always_inline bool selected_group(const struct nc_http_config *cfg,
					   struct task_struct *task)
{
	if (cfg->select & NC_HTTP_SELECT_CGROUP &&
	    bpf_get_current_ancestor_cgroup_id(cfg->cgroup_level) != cfg->cgroup_id)
		return false;
	if (cfg->select & NC_HTTP_SELECT_COMM) {
		__u64 comm[2] = {};
		const __u64 *wanted = (const void *)cfg->comm;

		bpf_probe_read_kernel_str(comm, sizeof(comm), task->group_leader->comm);
		if (comm[0] != wanted[0] || comm[1] != wanted[1])
			return false;
	}
	return true;
}

static __always_inline bool selected(const struct nc_http_config *cfg, struct sock *sk,
				     struct task_struct *task)
{
	if (!cfg->select)
		return true;
	if (cfg->select & NC_HTTP_SELECT_PORT && !nc_http_port(sk->__sk_common.skc_num) &&
	    !nc_http_port(bpf_ntohs(sk->__sk_common.skc_dport)))
		return false;
	if (cfg->select & NC_HTTP_SELECT_PID) {
		__u32 pid = task->tgid;

		if (!bpf_map_lookup_elem(&pids, &pid))
			return false;
	}
	if (cfg->select & NC_HTTP_SELECT_NETNS &&
	    sk->__sk_common.skc_net.net->ns.inum != cfg->netns)
		return false;
	return selected_group(cfg, task);
}

/* The number of the next byte to be sent or read. The peer's FIN takes a number, and the read that meets it takes
 * it along. */
static __always_inline __u32 passed_to(struct sock *sk, struct tcp_sock *tcp, __u32 direction)
{
	__u32 copied = tcp->copied_seq;

	if (direction == NC_HTTP_SENT)
		return tcp->write_seq;
	return copied - (sk->__sk_common.skc_flags >> SOCK_DONE & 1 && copied == tcp->rcv_nxt);
}

#endif
