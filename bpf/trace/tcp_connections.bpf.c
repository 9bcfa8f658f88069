// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lives of TCP connections, from tracepoints that every kernel has. The process that is told is the socket's
 * owner: who asked for the connection, who listens, or who closed it; most changes of state happen in interrupts,
 * where some other process runs. So owners are taken down where a system call is under way, and kept with the socket.
 */
#include <vmlinux.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include <netctl/abi/trace_tcp.h>
#include <netctl/lib/trace.h>

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 wanted; /* 1 << enum nc_tcp_kind */
const volatile __u64 min_ns; /* CONNECT: nothing that took less */

struct connection {
	__u64 asked_ns;	      /* when the SYN was sent */
	__u64 established_ns; /* 0: not yet, or before the tracer was there */
	__u64 state_ns;	      /* since when it is in its state; 0: not known */
	struct nc_trace_owner owner;
	__u32 reset_reason;
	__u8 role;
	__u8 flags;
	__u8 reserved[6];
};

/* Cloned: what is accepted begins with its listener's owner. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct connection);
} connections SEC(".maps");

static __always_inline void fill_figures(struct nc_tcp_event *event, struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	__u32 min_rtt;

	if (!tp)
		return;
	event->retransmitted_bytes = tp->bytes_retrans;
	event->sent_bytes = tp->bytes_sent - event->retransmitted_bytes;
	/* The other side's FIN has a number, and is counted as a byte. */
	event->received_bytes = tp->bytes_received;
	if (event->received_bytes && sk->__sk_common.skc_flags >> SOCK_DONE & 1)
		event->received_bytes--;
	event->sent_segments = tp->segs_out;
	event->received_segments = tp->segs_in;
	event->retransmitted_segments = tp->total_retrans;
	event->rtt_us = tp->srtt_us >> 3;
	event->rtt_deviation_us = tp->mdev_us >> 2;
	min_rtt = tp->rtt_min.s[0].v;
	event->min_rtt_us = min_rtt == ~0u ? 0 : min_rtt;
}

static __noinline int tell(struct sock *sk, struct connection *connection, __u32 kind, __u32 states,
			   __u64 since_ns)
{
	struct nc_trace_counters *count = nc_trace_count();
	struct nc_tcp_event *event;

	if (!count || !sk || !connection)
		return 0;
	if (!nc_socket_selected(sk) || !nc_owner_selected(&connection->owner))
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count->lost++;
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = kind;
	event->family = sk->__sk_common.skc_family == AF_INET6 ? 6 : 4;
	event->role = connection->role;
	event->flags = connection->flags;
	event->before = states >> 8;
	event->after = states;
	event->error = sk->sk_err;
	event->time_ns = bpf_ktime_get_ns();
	event->cookie = bpf_get_socket_cookie(sk);
	event->since_ns = since_ns;
	event->cgroup_id = nc_cgroup_of(sk);
	event->netns = sk->__sk_common.skc_net.net->ns.inum;
	event->local_port = nc_local_port(sk);
	event->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	nc_local_address(sk, event->local);
	nc_remote_address(sk, event->remote);
	event->owner = connection->owner;
	event->reset_reason = connection->reset_reason;
	fill_figures(event, sk);
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	count->sent++;
	return 0;
}

/* Who closes what this host did not ask for is its owner better known than who listens: a server's worker. */
static __always_inline void owner_acts(struct connection *connection)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!(task->flags & PF_KTHREAD))
		nc_owner_is(&connection->owner, task);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state, struct sock *sk, int before, int after)
{
	struct nc_trace_counters *count = nc_trace_count();
	__u64 now = bpf_ktime_get_ns(), since;
	struct connection *connection;
	__u32 states = before << 8 | after;

	/* Who closes a socket that was shut down already enters the same state again. */
	if (sk->sk_protocol != IPPROTO_TCP || before == after || !count)
		return 0;
	count->seen++;
	connection = bpf_sk_storage_get(&connections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!connection) {
		count->no_memory++;
		return 0;
	}
	since = connection->state_ns;
	if (before == TCP_LISTEN && after == TCP_SYN_RECV) {
		/* A copy of the listener, which has neither ports nor addresses yet. */
		connection->asked_ns = connection->established_ns = 0;
		connection->state_ns = now;
		connection->flags = 0;
		connection->role = NC_TCP_SERVER;
		return 0;
	}
	if (before == TCP_CLOSE) {
		connection->asked_ns = after == TCP_SYN_SENT ? now : 0;
		connection->established_ns = 0;
		connection->flags = 0;
		connection->role = after == TCP_SYN_SENT ? NC_TCP_CLIENT : NC_TCP_UNKNOWN;
		owner_acts(connection);
	} else if (before == TCP_ESTABLISHED || before == TCP_CLOSE_WAIT) {
		connection->flags |= NC_TCP_ESTABLISHED;
		if (after == TCP_CLOSE_WAIT)
			connection->flags |= NC_TCP_FIN_RECEIVED;
		if (before == TCP_ESTABLISHED && after == TCP_FIN_WAIT1)
			connection->flags |= NC_TCP_FIN_SENT;
		if (connection->role != NC_TCP_CLIENT &&
		    (after == TCP_FIN_WAIT1 || after == TCP_LAST_ACK))
			owner_acts(connection);
	} else if (before == TCP_FIN_WAIT1 || before == TCP_FIN_WAIT2 || before == TCP_LAST_ACK ||
		   before == TCP_CLOSING) {
		connection->flags |= NC_TCP_ESTABLISHED;
	}
	if (wanted & 1 << NC_TCP_STATE)
		tell(sk, connection, NC_TCP_STATE, states, since);
	connection->state_ns = now;
	if (after == TCP_ESTABLISHED)
		connection->established_ns = now;
	if (after == TCP_ESTABLISHED || after == TCP_CLOSE) {
		__u64 asked = connection->asked_ns;

		connection->asked_ns = 0;
		if (wanted & 1 << NC_TCP_CONNECT && asked && now - asked >= min_ns)
			tell(sk, connection, NC_TCP_CONNECT, states, asked);
	}
	if (after == TCP_ESTABLISHED)
		connection->flags |= NC_TCP_ESTABLISHED;
	if (wanted & 1 << NC_TCP_CLOSE && after == TCP_CLOSE &&
	    connection->flags & NC_TCP_ESTABLISHED)
		tell(sk, connection, NC_TCP_CLOSE, states, connection->established_ns);
	return 0;
}

static __always_inline void mark(struct sock *sk, __u32 flag, __u32 reason)
{
	struct connection *connection;

	/* A listener's goes to nobody who connects; nor has what is in TIME_WAIT a storage. */
	if (!sk)
		return;
	connection = bpf_sk_storage_get(&connections, sk, 0, 0);
	if (!connection)
		return;
	connection->flags |= flag;
	if (flag & NC_TCP_REASON)
		connection->reset_reason = reason;
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(tcp_reset_in, struct sock *sk)
{
	mark(sk, NC_TCP_RST_RECEIVED, 0);
	return 0;
}

SEC("tp_btf/tcp_send_reset")
int BPF_PROG(tcp_reset_out, struct sock *sk)
{
	mark(sk, NC_TCP_RST_SENT, 0);
	return 0;
}

/* Kernels that say why (6.10). */
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(tcp_reset_why, struct sock *sk, struct sk_buff *skb, int reason)
{
	mark(sk, NC_TCP_RST_SENT | NC_TCP_REASON, reason);
	return 0;
}

/* Sockets that are older than the tracer, with those who have them open: the first, where there are several. */
SEC("iter/task_file")
int tcp_owners(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct connection *connection;
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk;

	if (!task || !file || task->tgid != task->pid)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || sk->sk_protocol != IPPROTO_TCP ||
	    (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6) ||
	    sk->__sk_common.skc_state == TCP_CLOSE)
		return 0;
	connection = bpf_sk_storage_get(&connections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (connection && !connection->owner.pid)
		nc_owner_is(&connection->owner, task);
	return 0;
}
