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

#include <netctl/abi/trace_rtt.h>
#include <netctl/abi/trace_tcp.h>
#include <netctl/lib/slots.h>
#include <netctl/lib/trace.h>

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 wanted; /* 1 << enum nc_tcp_kind */
const volatile __u64 min_ns; /* CONNECT: nothing that took less */

struct connection {
	__u64 asked_ns;	      /* when the SYN was sent */
	__u64 established_ns; /* 0: not yet, or before the tracer was there */
	__u64 state_ns;	      /* since when it is in its state; 0: not known */
	__u64 cookie;	      /* the socket's; not every program may ask for it */
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

/* A record of this connection, or none if it is not selected, or the ring is full. The caller submits it. */
static __always_inline struct nc_tcp_event *begin_event(struct nc_trace_counters *count, __u32 kind,
							const struct nc_trace_ends *ends,
							__u32 netns)
{
	struct nc_tcp_event *event;

	if (!nc_ends_selected(ends, netns))
		return NULL;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count->lost++;
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = kind;
	event->time_ns = bpf_ktime_get_ns();
	event->ends = *ends;
	event->netns = netns;
	return event;
}

static __always_inline void end_event(struct nc_trace_counters *count, struct nc_tcp_event *event)
{
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	count->sent++;
}

static __always_inline void fill_connection(struct nc_tcp_event *event, struct sock *sk,
					    const struct connection *connection)
{
	event->error = sk->sk_err;
	event->cookie = connection->cookie;
	event->cgroup_id = nc_cgroup_of(sk);
	event->role = connection->role;
	event->flags = connection->flags;
	event->owner = connection->owner;
	event->reason = connection->reset_reason;
}

static __always_inline bool connection_selected(struct sock *sk,
						const struct connection *connection)
{
	return nc_cgroup_selected(sk) && nc_owner_selected(&connection->owner);
}

static __noinline int tell(struct sock *sk, struct connection *connection, __u32 kind, __u32 states,
			   __u64 since_ns)
{
	struct nc_trace_counters *count = nc_trace_count();
	struct nc_trace_ends ends = {};
	struct nc_tcp_event *event;

	if (!count || !sk || !connection || !connection_selected(sk, connection))
		return 0;
	nc_ends_of_full(sk, &ends);
	event = begin_event(count, kind, &ends, sk->__sk_common.skc_net.net->ns.inum);
	if (!event)
		return 0;
	fill_connection(event, sk, connection);
	event->before = states >> 8;
	event->after = states;
	event->since_ns = since_ns;
	fill_figures(event, sk);
	end_event(count, event);
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
	if (!connection->cookie)
		connection->cookie = bpf_get_socket_cookie(sk);
	since = connection->state_ns;
	if (before == TCP_LISTEN && after == TCP_SYN_RECV) {
		/* A copy of the listener, which has neither ports nor addresses yet. */
		connection->asked_ns = connection->established_ns = 0;
		connection->state_ns = now;
		connection->flags = 0;
		connection->role = NC_TCP_SERVER;
		connection->cookie = bpf_get_socket_cookie(sk);
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

static __always_inline bool is_full(const struct sock *sk)
{
	return sk->__sk_common.skc_state != TCP_TIME_WAIT &&
	       sk->__sk_common.skc_state != TCP_NEW_SYN_RECV;
}

/* Who sends what has no answer is the socket's owner. */
static __always_inline void tell_again(struct sock *sk, const struct nc_trace_ends *ends, __u32 why,
				       __u32 sequence, __u32 length)
{
	struct nc_trace_counters *count = nc_trace_count();
	struct connection *connection;
	struct nc_tcp_event *event;

	if (!count)
		return;
	count->seen++;
	connection = bpf_sk_storage_get(&connections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!connection) {
		count->no_memory++;
		return;
	}
	if (!connection->cookie)
		connection->cookie = bpf_get_socket_cookie(sk);
	if (!connection_selected(sk, connection))
		return;
	event = begin_event(count, NC_TCP_RETRANSMIT, ends, sk->__sk_common.skc_net.net->ns.inum);
	if (!event)
		return;
	fill_connection(event, sk, connection);
	event->before = event->after = sk->__sk_common.skc_state;
	event->why = why;
	event->sequence = sequence;
	event->length = length;
	fill_figures(event, sk);
	end_event(count, event);
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(tcp_again, struct sock *sk, struct sk_buff *skb)
{
	const struct inet_connection_sock *icsk = (const void *)sk;
	struct nc_trace_ends ends = {};
	__u32 why = NC_TCP_WHY_PROBE, state = BPF_CORE_READ_BITFIELD_PROBED(icsk, icsk_ca_state);

	if (!sk || !skb)
		return 0;
	if (sk->__sk_common.skc_state == TCP_SYN_SENT)
		why = NC_TCP_WHY_SYN;
	else if (state == TCP_CA_Loss)
		why = NC_TCP_WHY_TIMEOUT;
	else if (state == TCP_CA_Recovery)
		why = NC_TCP_WHY_FAST;
	nc_ends_of_full(sk, &ends);
	tell_again(sk, &ends, why, BPF_CORE_READ((struct tcp_skb_cb *)&skb->cb[0], seq), skb->len);
	return 0;
}

SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(tcp_again_synack, struct sock *sk, struct request_sock *req)
{
	struct nc_trace_ends ends = {};

	nc_ends_of(&req->__req_common, &ends);
	tell_again(sk, &ends, NC_TCP_WHY_SYNACK,
		   BPF_CORE_READ((struct tcp_request_sock *)req, snt_isn), 0);
	return 0;
}

/* The ends of a segment of TCP that came in, or with `out`, that was to go out, from its headers. False: it is none. */
static __always_inline bool ends_of_packet(const struct sk_buff *skb, bool out,
					   struct nc_trace_ends *ends, __u32 *sequence,
					   __u32 *length)
{
	const unsigned char *at = skb->head + skb->network_header;
	struct tcphdr tcp;
	__u16 protocol = bpf_ntohs(skb->protocol);
	__u32 size;

	if (skb->network_header == 0xffff)
		return false;
	if (protocol == 0x0800) {
		struct iphdr ip;

		if (bpf_probe_read_kernel(&ip, sizeof(ip), at) || ip.version != 4 ||
		    ip.protocol != IPPROTO_TCP || ip.frag_off & bpf_htons(0x1fff))
			return false;
		size = ip.ihl * 4;
		*length = bpf_ntohs(ip.tot_len) - size;
		ends->family = 4;
		__builtin_memcpy(out ? ends->local : ends->remote, &ip.saddr, 4);
		__builtin_memcpy(out ? ends->remote : ends->local, &ip.daddr, 4);
	} else if (protocol == 0x86dd) {
		struct ipv6hdr ip;

		if (bpf_probe_read_kernel(&ip, sizeof(ip), at) || ip.nexthdr != IPPROTO_TCP)
			return false;
		size = sizeof(ip);
		*length = bpf_ntohs(ip.payload_len);
		ends->family = 6;
		__builtin_memcpy(out ? ends->local : ends->remote, &ip.saddr, 16);
		__builtin_memcpy(out ? ends->remote : ends->local, &ip.daddr, 16);
	} else {
		return false;
	}
	if (bpf_probe_read_kernel(&tcp, sizeof(tcp), at + size))
		return false;
	*length = *length > tcp.doff * 4u ? *length - tcp.doff * 4u : 0;
	*sequence = bpf_ntohl(tcp.seq);
	ends->local_port = bpf_ntohs(out ? tcp.source : tcp.dest);
	ends->remote_port = bpf_ntohs(out ? tcp.dest : tcp.source);
	return true;
}

/* A reset is marked at the connection, for CLOSE, and told. Of `skb`, which a reset answers, the ends are known even
 * where there is no socket, or a listener. */
static __always_inline void on_reset(struct sock *sk, struct sk_buff *skb, __u32 flags,
				     __u32 reason)
{
	struct nc_trace_counters *count = nc_trace_count();
	struct connection *connection = NULL;
	struct nc_trace_ends ends = {};
	__u32 netns = 0, sequence, length;
	struct nc_tcp_event *event;

	if (!count)
		return;
	count->seen++;
	if (sk && is_full(sk)) {
		connection = bpf_sk_storage_get(&connections, sk, 0, 0);
		if (connection && sk->__sk_common.skc_state != TCP_LISTEN) {
			connection->flags |= flags;
			if (flags & NC_TCP_REASON)
				connection->reset_reason = reason;
		}
	}
	if (!(wanted & 1 << NC_TCP_RESET) || (!connection && nc_needs_socket()))
		return;
	if (connection && !connection_selected(sk, connection))
		return;
	if (skb) {
		if (!ends_of_packet(skb, false, &ends, &sequence, &length))
			return;
		netns = BPF_CORE_READ(skb, dev, nd_net.net, ns.inum);
	} else if (sk) {
		nc_ends_of_full(sk, &ends);
	} else {
		return;
	}
	if (sk)
		netns = sk->__sk_common.skc_net.net->ns.inum;
	event = begin_event(count, NC_TCP_RESET, &ends, netns);
	if (!event)
		return;
	if (connection)
		fill_connection(event, sk, connection);
	if (sk)
		event->before = event->after = sk->__sk_common.skc_state;
	event->flags = flags;
	event->reason = reason;
	end_event(count, event);
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(tcp_reset_in, struct sock *sk)
{
	on_reset(sk, NULL, NC_TCP_RST_RECEIVED, 0);
	return 0;
}

SEC("tp_btf/tcp_send_reset")
int BPF_PROG(tcp_reset_out, struct sock *sk, struct sk_buff *skb)
{
	on_reset(sk, skb, NC_TCP_RST_SENT, 0);
	return 0;
}

/* Kernels that say why (6.10). */
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(tcp_reset_why, struct sock *sk, struct sk_buff *skb, int reason)
{
	on_reset(sk, skb, NC_TCP_RST_SENT | NC_TCP_REASON, reason);
	return 0;
}

/* Whose the segment is stands in it only if its socket was found already; what went out is its socket's own. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(tcp_drop, struct sk_buff *skb, void *location, __u32 reason)
{
	struct nc_trace_counters *count = nc_trace_count();
	struct connection *connection = NULL;
	struct nc_trace_ends ends = {};
	__u32 netns = 0, sequence = 0, length = 0;
	struct nc_tcp_event *event;
	struct sock *sk = skb->sk;

	if (reason == bpf_core_enum_value(enum skb_drop_reason, SKB_NOT_DROPPED_YET) ||
	    (bpf_core_enum_value_exists(enum skb_drop_reason, SKB_CONSUMED) &&
	     reason == bpf_core_enum_value(enum skb_drop_reason, SKB_CONSUMED)))
		return 0;
	if (!count || !ends_of_packet(skb, false, &ends, &sequence, &length))
		return 0;
	/* The other side's FIN, in the queue of a socket that goes. */
	if (!length &&
	    bpf_core_enum_value_exists(enum skb_drop_reason, SKB_DROP_REASON_QUEUE_PURGE) &&
	    reason == bpf_core_enum_value(enum skb_drop_reason, SKB_DROP_REASON_QUEUE_PURGE))
		return 0;
	count->seen++;
	if (sk && is_full(sk) && sk->sk_protocol == IPPROTO_TCP) {
		connection = bpf_sk_storage_get(&connections, sk, 0, 0);
		netns = sk->__sk_common.skc_net.net->ns.inum;
		if (sk->__sk_common.skc_num != ends.local_port &&
		    sk->__sk_common.skc_num == ends.remote_port) {
			__builtin_memset(&ends, 0, sizeof(ends));
			ends_of_packet(skb, true, &ends, &sequence, &length);
		}
	} else {
		sk = NULL;
		netns = BPF_CORE_READ(skb, dev, nd_net.net, ns.inum);
	}
	if ((!connection && nc_needs_socket()) ||
	    (sk && connection && !connection_selected(sk, connection)))
		return 0;
	event = begin_event(count, NC_TCP_DROP, &ends, netns);
	if (!event)
		return 0;
	if (sk && connection)
		fill_connection(event, sk, connection);
	if (sk)
		event->before = event->after = sk->__sk_common.skc_state;
	event->reason = reason;
	event->sequence = sequence;
	event->length = length;
	event->place = (__u64)location;
	end_event(count, event);
	return 0;
}

const volatile __u32 group_by;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NC_RTT_GROUPS);
	__type(key, struct nc_rtt_group);
	__type(value, struct nc_rtt_values);
} groups SEC(".maps");

struct nc_rtt_values no_values;

/* Each segment that comes in on an established connection. */
SEC("tp_btf/tcp_probe")
int BPF_PROG(tcp_rtt, struct sock *sk)
{
	struct nc_trace_counters *count = nc_trace_count();
	struct connection *connection = NULL;
	struct nc_trace_ends ends = {};
	struct nc_rtt_group group = {};
	struct nc_rtt_values *values;
	struct tcp_sock *tp;
	__u32 rtt, slot, least;

	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || !count)
		return 0;
	rtt = tp->srtt_us >> 3;
	if (!rtt)
		return 0;
	nc_ends_of_full(sk, &ends);
	if (!nc_ends_selected(&ends, sk->__sk_common.skc_net.net->ns.inum) ||
	    !nc_cgroup_selected(sk))
		return 0;
	if (group_by & (NC_RTT_BY_PROCESS | NC_RTT_BY_PORT) ||
	    selection.select & (NC_TRACE_SELECT_PID | NC_TRACE_SELECT_COMM))
		connection = bpf_sk_storage_get(&connections, sk, 0, 0);
	if (selection.select & (NC_TRACE_SELECT_PID | NC_TRACE_SELECT_COMM) &&
	    (!connection || !nc_owner_selected(&connection->owner)))
		return 0;
	if (group_by & NC_RTT_BY_REMOTE) {
		__builtin_memcpy(group.address, ends.remote, 16);
		group.family = ends.family;
	}
	/* Of who is older than the tracer it is not known who asked; ports that clients get are high. */
	if (group_by & NC_RTT_BY_PORT) {
		bool server = connection && connection->role == NC_TCP_SERVER;

		if (!connection || connection->role == NC_TCP_UNKNOWN)
			server = ends.local_port < ends.remote_port;
		group.port = server ? ends.local_port : ends.remote_port;
	}
	if (group_by & NC_RTT_BY_CGROUP)
		group.cgroup_id = nc_cgroup_of(sk);
	if (group_by & NC_RTT_BY_PROCESS && connection)
		group.owner = connection->owner;
	values = bpf_map_lookup_elem(&groups, &group);
	if (!values) {
		bpf_map_update_elem(&groups, &group, &no_values, BPF_NOEXIST);
		values = bpf_map_lookup_elem(&groups, &group);
		if (!values) {
			count->no_memory++;
			return 0;
		}
	}
	slot = nc_slot_of(rtt, 27);
	asm volatile(
		""
		: "+r"(slot)); /* the check is for the verifier: it does not know what the compiler does */
	if (slot < NC_RTT_SLOTS)
		values->slots[slot]++;
	values->samples++;
	count->sent++;
	values->sum_us += rtt;
	values->deviation_sum_us += tp->mdev_us >> 2;
	least = tp->rtt_min.s[0].v;
	if (least != ~0u && (!values->min_us || least < values->min_us))
		values->min_us = least;
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
	if (connection && !connection->owner.pid) {
		connection->cookie = bpf_get_socket_cookie(sk);
		nc_owner_is(&connection->owner, task);
	}
	return 0;
}

/* What waits at listening sockets, found through the files that are open of them. */
SEC("iter/task_file")
int tcp_listeners(struct bpf_iter__task_file *ctx)
{
	struct nc_trace_counters *count = nc_trace_count();
	struct task_struct *task = ctx->task;
	const struct inet_connection_sock *icsk;
	struct nc_tcp_listener *listener;
	struct nc_trace_owner owner = {};
	struct nc_trace_ends ends = {};
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk;
	__u32 netns;

	if (!count || !task || !file || task->tgid != task->pid)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || sk->sk_protocol != IPPROTO_TCP || sk->__sk_common.skc_state != TCP_LISTEN ||
	    (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6))
		return 0;
	nc_owner_is(&owner, task);
	nc_ends_of_full(sk, &ends);
	netns = sk->__sk_common.skc_net.net->ns.inum;
	if (!nc_ends_selected(&ends, netns) || !nc_cgroup_selected(sk) ||
	    !nc_owner_selected(&owner))
		return 0;
	count->seen++;
	listener = bpf_ringbuf_reserve(&events, sizeof(*listener), 0);
	if (!listener) {
		count->lost++;
		return 0;
	}
	__builtin_memset(listener, 0, sizeof(*listener));
	icsk = (const void *)sk;
	listener->kind = NC_TCP_LISTENER;
	listener->netns = netns;
	listener->time_ns = bpf_ktime_get_ns();
	listener->cookie = bpf_get_socket_cookie(sk);
	listener->cgroup_id = nc_cgroup_of(sk);
	listener->ends = ends;
	listener->owner = owner;
	listener->ready = sk->sk_ack_backlog;
	listener->limit = sk->sk_max_ack_backlog;
	listener->half_open = BPF_CORE_READ(icsk, icsk_accept_queue.qlen.counter);
	listener->drops = (__u32)sk->sk_drops.counter;
	bpf_ringbuf_submit(listener, BPF_RB_NO_WAKEUP);
	count->sent++;
	return 0;
}
