/* SPDX-License-Identifier: GPL-2.0-only */
/* Redirection: how the two ends prove what they are, and enter the map. */
#ifndef NETCTL_REDIRECT_JOIN_H
#define NETCTL_REDIRECT_JOIN_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "netctl/abi/redirect.h"

#include "redirect_ends.h"
#include "redirect_leave.h"
#include "redirect_observe.h"
#include "redirect_rules.h"
#include "redirect_state.h"

/* The end that was announced, or its peer; `netns` as for bpf_sk_lookup_tcp(). */
static __always_inline struct bpf_sock *find(struct __sk_buff *skb, const struct nc_rd_end *e,
					     bool peer, __s64 netns)
{
	const __be32 *local = peer ? e->remote : e->local, *remote = peer ? e->local : e->remote;
	__u16 local_port = peer ? e->remote_port : e->local_port;
	__u16 remote_port = peer ? e->local_port : e->remote_port;
	struct bpf_sock_tuple tuple = {};

	/* As in a packet to that socket. */
	if (e->family == 4) {
		tuple.ipv4.saddr = remote[0];
		tuple.ipv4.daddr = local[0];
		tuple.ipv4.sport = bpf_htons(remote_port);
		tuple.ipv4.dport = bpf_htons(local_port);
		return bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), netns, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, remote, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, local, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = bpf_htons(remote_port);
	tuple.ipv6.dport = bpf_htons(local_port);
	return bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), netns, 0);
}

#define FLAG(name) (1UL << bpf_core_enum_value(enum sock_flags, name))

/* What a joined socket does not honour is set. */
static __always_inline bool has_option(struct tcp_sock *tp)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	void *filter = NULL;

	READ(filter, &sk->sk_filter);
	return filter || sk->sk_rcvlowat > 1 || sk->sk_tsflags || sk->sk_peek_off >= 0 ||
	       tp->urg_data || sk->sk_max_pacing_rate != ~0UL ||
	       BPF_CORE_READ_BITFIELD(tp, repair) || BPF_CORE_READ_BITFIELD(tp, recvmsg_inq) ||
	       sk->__sk_common.skc_flags &
		       (FLAG(SOCK_ZEROCOPY) | FLAG(SOCK_URGINLINE) | FLAG(SOCK_RCVTSTAMP) |
			FLAG(SOCK_RCVTSTAMPNS) | FLAG(SOCK_TXTIME) | FLAG(SOCK_FASYNC));
}

/* Why one end must stay on TCP, or cannot join in this moment (BUSY); its flags word's address otherwise. */
static __always_inline __u32 unsuited(struct tcp_sock *tp, __u64 netns, const struct rd_mine *mine,
				      __u64 *file_flags)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	struct socket *socket = sk->sk_socket;
	struct file *file = NULL;
	void *pointer = NULL;
	__u64 cookie = 0;
	__u32 flags = 0;
	struct net *net = sk->__sk_common.skc_net.net;

	READ(cookie, &net->net_cookie);
	if (cookie != netns)
		return NC_RD_REASON_NO_PEER;
	READ(pointer, &sk->sk_user_data);
	if (pointer) /* our own stays as long as somebody is in a recv that began in the map */
		return mine->taken_back ? NC_RD_REASON_BUSY : NC_RD_REASON_ULP;
	READ(pointer, &tp->inet_conn.icsk_ulp_ops);
	if (pointer)
		return NC_RD_REASON_ULP;
	if (has_option(tp))
		return NC_RD_REASON_OPTION;
	if (sk->sk_shutdown || !socket)
		return NC_RD_REASON_CLOSING;
	READ(file, &socket->file);
	if (!file)
		return NC_RD_REASON_CLOSING;
	*file_flags = (__u64)&file->f_flags;
	READ(flags, &file->f_flags);
	if (!rd_allow_blocking && !(flags & O_NONBLOCK))
		return NC_RD_REASON_BLOCKING;
	return NC_RD_REASON_NONE;
}

/*
 * The sender began with the sequence number that the receiver first expected. Unlike where the two
 * are now, that leaves no room for what is on its way: Linux takes first numbers from a hash of the
 * addresses and a clock of 64 ns, so connections of the same addresses in different namespaces
 * differ by their age alone. Who connected counts its SYN among the acknowledged bytes, hence the
 * 1. Each pair of counters is written one after the other, hence more than one look.
 */
static __always_inline bool began_with(struct tcp_sock *from, struct tcp_sock *to)
{
	__u32 agrees = 0;

	/* Without branches: the verifier would follow each of them through all that comes. */
#pragma unroll
	for (int i = 0; i < 3; i++) {
		__u32 first = *(volatile __u32 *)&from->snd_una -
			      (__u32) * (volatile __u64 *)&from->bytes_acked;
		__u32 expected = *(volatile __u32 *)&to->rcv_nxt -
				 (__u32) * (volatile __u64 *)&to->bytes_received;
		__u64 difference = expected - first;

		agrees |= (difference - 2) >> 63; /* 0 or 1 */
	}
	return agrees;
}

/*
 * Each has sent what the other has received. The connection is
 * alive meanwhile, hence the order: what the sender knows to be received, what was received, what
 * was written. Read so, they never decrease along the line. (snd_nxt would: over loopback it is
 * raised only after the segment was received.)
 */
static __always_inline bool sent_to(struct tcp_sock *from, struct tcp_sock *to)
{
	__u32 acknowledged = *(volatile __u32 *)&from->snd_una;
	__u32 received = *(volatile __u32 *)&to->rcv_nxt;
	__u32 written = *(volatile __u32 *)&from->write_seq;

	return written - acknowledged <= 65536 && received - acknowledged <= written - acknowledged;
}

static __always_inline bool each_others_peer(struct tcp_sock *a, struct tcp_sock *b)
{
	return a != b && began_with(a, b) && began_with(b, a) && sent_to(a, b) && sent_to(b, a);
}

static __always_inline void list_cgroups(struct tcp_sock *tp, __u64 *ids)
{
	struct cgroup *cgroup = tp->inet_conn.icsk_inet.sk.sk_cgrp_data.cgroup;

	for (int i = 0; i < RD_CGROUP_DEPTH; i++) {
		struct cgroup_subsys_state *parent = NULL;
		struct kernfs_node *kn = NULL;
		__u64 id = 0;

		if (cgroup) {
			READ(kn, &cgroup->kn);
			READ(id, &kn->id);
			READ(parent, &cgroup->self.parent);
			cgroup = parent ? (void *)parent -
						  bpf_core_field_offset(struct cgroup, self) :
					  NULL;
		}
		ids[i] = id;
	}
}

struct rd_search {
	__u64 now;
	__u32 slot;
	__u32 found;
};

/* bpf_loop callback: stops at a slot with nobody in it. Unrolled, it takes 6.1 a minute to verify. */
static long try_slot(__u32 i, struct rd_search *s)
{
	__u32 candidate = (s->slot + i) % NC_RD_SLOTS;
	struct nc_rd_pair *p = bpf_map_lookup_elem(&rd_pairs, &candidate);

	if (!p)
		return 1;
	if (p->state == NC_RD_JOINED && gone(p->socket[0], p->psock[0]) &&
	    gone(p->socket[1], p->psock[1]))
		leave(p, NC_RD_REASON_CLOSED); /* closed before any callback was set */
	if (p->state == NC_RD_LEAVING)
		take_out(p, candidate);
	/* Programs that still run for the former pair end long before that. */
	if (p->state != NC_RD_FREE || (p->freed_ns && s->now - p->freed_ns <= SECOND))
		return 0;
	s->slot = candidate;
	s->found = 1;
	return 1;
}

/* A slot with nobody in it, from `slot` on; a bounded search, the joiner asks again. */
static __always_inline struct nc_rd_pair *find_room(__u32 *slot)
{
	struct rd_search s = { .now = bpf_ktime_get_ns(), .slot = *slot };
	__u32 found;

	bpf_loop(16, try_slot, &s, 0);
	if (!s.found)
		return NULL;
	found = s.slot;
	*slot = found;
	return bpf_map_lookup_elem(&rd_pairs, &found);
}

static __always_inline __u64 psock_of(struct tcp_sock *tp)
{
	__u64 user_data = 0;

	READ(user_data, &tp->inet_conn.icsk_inet.sk.sk_user_data);
	return user_data & ~7ULL;
}

#define SOCK_RCVBUF_LOCK 2

/* What is less: the bound for all, or what the application has set the reader's buffer to. */
static __always_inline __u32 ahead_limit(struct tcp_sock *reader)
{
	struct sock *sk = &reader->inet_conn.icsk_inet.sk;
	__u32 size = sk->sk_rcvbuf;

	if (!(BPF_CORE_READ_BITFIELD(sk, sk_userlocks) & SOCK_RCVBUF_LOCK))
		return rd_max_ahead;
	return size < rd_max_ahead ? size : rd_max_ahead;
}

/* Nothing is unread at `reader`, or on its way there; what was read first cannot have grown since. */
static __always_inline bool has_read(struct tcp_sock *reader, struct tcp_sock *sender)
{
	__u32 copied = *(volatile __u32 *)&reader->copied_seq;

	return copied == *(volatile __u32 *)&sender->write_seq;
}

/* S5. Nothing is unread or on its way, and nobody is in a system call that would change that. */
static __always_inline bool at_rest(struct tcp_sock *a, struct tcp_sock *b)
{
	return has_read(a, b) && has_read(b, a) && !a->inet_conn.icsk_inet.sk.sk_lock.owned &&
	       !b->inet_conn.icsk_inet.sk.sk_lock.owned;
}

struct rd_ends {
	struct tcp_sock *a, *b;
	__u32 from; /* the first look whose answer counts */
	__u32 rest;
};

/* bpf_loop callback. */
static long look_once(__u32 i, struct rd_ends *ends)
{
	ends->rest = at_rest(ends->a, ends->b) && i >= ends->from;
	return ends->rest;
}

/*
 * Where one asks as soon as it has its answer, the moments in which nothing is on its way are a few
 * microseconds each, and it takes as long to join. So they are watched for, for some tens of
 * microseconds, and most are met at their beginning. On the CPU that both ends are on, nothing
 * changes meanwhile: then there is the next try.
 */
static __always_inline bool comes_to_rest(struct tcp_sock *a, struct tcp_sock *b, __u32 from)
{
	struct rd_ends ends = { .a = a, .b = b, .from = from };

	bpf_loop(rd_looks, look_once, &ends, 0);
	return ends.rest;
}

static __u64 rd_serial;

/* By bit. What is on its way may arrive while they are still in the map. */
static __always_inline __u32 unread_ends(struct tcp_sock *a, struct tcp_sock *b)
{
	return !has_read(a, b) | !has_read(b, a) << 1;
}

/*
 * Out again, as if it had never been in; false if it is leaving anyhow. The gate is closed. The order
 * is for callbacks that run meanwhile: they see a pair, or ends that never joined.
 */
static __always_inline bool undo(struct nc_rd_pair *p, __u32 slot, struct rd_mine *ma,
				 struct rd_mine *mb)
{
	delete_ends(p, slot);
	p->freed_ns = bpf_ktime_get_ns();
	ma->taken_back = mb->taken_back = 1;
	ma->index = mb->index = NOT_JOINED;
	if (__sync_val_compare_and_swap(&p->state, (__u64)NC_RD_JOINED, (__u64)NC_RD_FREE) !=
	    NC_RD_JOINED) {
		ma->index = 2 * slot;
		mb->index = 2 * slot + 1;
		return false;
	}
	ma->key = mb->key = 0;
	return true;
}

/* Not now: observe() waits on, unless this was the last try. */
static __always_inline __u32 later(struct nc_rd_request *q, struct rd_mine *ma, struct rd_mine *mb)
{
	ma->announced_ns = mb->announced_ns = bpf_ktime_get_ns();
	ma->refused = mb->refused = q->final;
	COUNT(tried_again);
	return NC_RD_REASON_BUSY;
}

static __always_inline __u32 join(struct nc_rd_request *q, struct bpf_sock *sa, struct bpf_sock *sb,
				  struct nc_rd_conf *c)
{
	struct tcp_sock *a = bpf_skc_to_tcp_sock(sa), *b = bpf_skc_to_tcp_sock(sb);
	struct nc_rd_end *e = &q->event.end;
	__u32 zero = 0, reason, index, passive_a, passive_b;
	__u64 file_flags[2] = {};
	struct rd_question ask = {};
	struct rd_cgroups *cgroups;
	struct rd_mine *ma, *mb;
	struct nc_rd_pair *p;
	int error;
	bool rests;

	if (!a || !b || sa->state != BPF_TCP_ESTABLISHED)
		return NC_RD_REASON_CLOSING;
	if (sb->state != BPF_TCP_ESTABLISHED) /* with `tentative` it may be a listener, or stale */
		return q->tentative ? NC_RD_REASON_NO_PEER : NC_RD_REASON_CLOSING;
	if (!each_others_peer(a, b))
		return NC_RD_REASON_IDENTITY;
	ma = bpf_sk_storage_get(&rd_mine, sa, NULL, 0);
	mb = bpf_sk_storage_get(&rd_mine, sb, NULL, 0);
	if (!ma) /* another connection has these addresses by now */
		return NC_RD_REASON_AGAIN;
	/* Before all else that tells a reason: whoever was refused observes no more, and the other end
	 * may be announced again before it knows. */
	if (ma->key || ma->refused || (mb && (mb->key || mb->refused)))
		return NC_RD_REASON_AGAIN;
	if ((a->bpf_sock_ops_cb_flags & b->bpf_sock_ops_cb_flags & OBSERVE) != OBSERVE)
		return NC_RD_REASON_OUTSIDE;
	if (!mb) /* the other end will be announced too */
		return NC_RD_REASON_AGAIN;
	passive_a = a->bpf_sock_ops_cb_flags & PASSIVE;
	passive_b = b->bpf_sock_ops_cb_flags & PASSIVE;
	if (!passive_a == !passive_b)
		return NC_RD_REASON_OUTSIDE;

	cgroups = bpf_map_lookup_elem(&rd_scratch, &zero);
	if (!cgroups)
		return NC_RD_REASON_KERNEL;
	list_cgroups(a, cgroups->ids[0]);
	list_cgroups(b, cgroups->ids[1]);
	if (!under(cgroups->ids[0], c->cgroup) || !under(cgroups->ids[1], c->cgroup))
		return NC_RD_REASON_OUTSIDE;
	ask.cgroups = cgroups;
	ask.bank = c->bank & 1;
	ask.family = e->family;
	__builtin_memcpy(ask.dst, passive_a ? e->local : e->remote, sizeof(ask.dst));
	ask.dport = passive_a ? e->local_port : e->remote_port;
	if (!ask_rules(&ask)) {
		ma->refused = mb->refused = 1;
		return NC_RD_REASON_RULE;
	}

	reason = unsuited(a, q->event.netns, ma, &file_flags[0]);
	if (!reason)
		reason = unsuited(b, q->peer_netns, mb, &file_flags[1]);
	if (reason && reason != NC_RD_REASON_BUSY) {
		ma->refused = mb->refused = 1;
		return reason;
	}
	if (reason)
		return later(q, ma, mb);

	p = find_room(&q->slot);
	if (!p)
		return NC_RD_REASON_FULL;
	q->key = p->key = ++rd_serial;
	p->netns = q->event.netns;
	p->peer_netns = q->peer_netns;
	p->end = *e;
	p->socket[0] = (__u64)a;
	p->socket[1] = (__u64)b;
	p->file_flags[0] = file_flags[0];
	p->file_flags[1] = file_flags[1];
	p->rules = ask.matches;
	p->generation = c->generation;
	p->judged = !ask.depends_on_exe;
	p->limit[0] = ahead_limit(b);
	p->limit[1] = ahead_limit(a);
	p->reason = p->last = p->run = p->tries = 0;
	__builtin_memset(p->process, 0, sizeof(p->process));
	p->ahead[0] = p->ahead[1] = 0;
	p->passed[0] = p->passed[1] = 0;
	p->gate = p->behind = 0;

	/* A timer that was set up before stays so. */
	error = bpf_timer_init(&p->timer, &rd_pairs, 1 /* CLOCK_MONOTONIC */);
	if (!error)
		error = bpf_timer_set_callback(&p->timer, on_timer);
	else if (error == -16 /* EBUSY */)
		error = bpf_timer_set_callback(&p->timer, on_timer);
	if (error)
		goto refused;

	if (!comes_to_rest(a, b, 0))
		return later(q, ma, mb);
	/* Not joined yet: until the storage says so, rd_msg passes. The key is for rd_setsockopt. */
	ma->key = mb->key = p->key;
	index = 2 * q->slot;
	error = bpf_map_update_elem(&rd_socks, &index, sa, BPF_NOEXIST);
	if (error)
		goto refused;
	index++;
	error = bpf_map_update_elem(&rd_socks, &index, sb, BPF_NOEXIST);
	if (error) {
		index--;
		bpf_map_delete_elem(&rd_socks, &index);
		ma->taken_back = 1;
		q->unheard = unread_ends(a, b);
		goto refused;
	}
	p->psock[0] = psock_of(a);
	p->psock[1] = psock_of(b);
	/*
	 * That took as long as a moment of rest lasts where one asks without a pause: often it is over,
	 * and what came went by TCP. The next one comes soon, and what is left to do takes no time. The
	 * first looks are for a send that had found the socket plain, and not locked it yet: it is seen.
	 */
	if (!comes_to_rest(a, b, rd_looks / 64)) {
		delete_ends(p, q->slot);
		ma->key = mb->key = 0;
		ma->taken_back = mb->taken_back = 1;
		p->freed_ns = bpf_ktime_get_ns(); /* the slot tells the joiner whom to wake */
		q->unheard = unread_ends(a, b);
		return later(q, ma, mb);
	}
	p->written[0] = a->write_seq;
	p->written[1] = b->write_seq;
	p->joined_ns = 0;
	barrier();
	p->state = NC_RD_JOINED;
	barrier();
	ma->index = 2 * q->slot;
	mb->index = 2 * q->slot + 1;
	/* From here on rd_msg has all messages. One may have come between the look and now. */
	__sync_fetch_and_add(&p->gate, 0);
	rests = at_rest(a, b) && idle(p, 0, 0) && idle(p, 1, 0);
	if (rests) {
		p->joined_ns = bpf_ktime_get_ns();
		/* Or come just now, and found us here: rd_sockops. */
		rests = !(__sync_fetch_and_add(&p->gate, 0) & NC_RD_CLOSED);
	}
	if (!rests) {
		if (close_gate(p, NOBODY) && undo(p, q->slot, ma, mb)) {
			q->unheard = unread_ends(a, b);
			return later(q, ma, mb);
		}
		/* It is redirected, or left, already. */
		p->joined_ns = bpf_ktime_get_ns();
		q->unheard = c->flags & NC_RD_NEVER_PASS ? unread_ends(a, b) : 0;
		if (q->unheard)
			leave(p, NC_RD_REASON_BUSY);
	}
	COUNT(joined);
	/* Shut down, or an option set, between the look and now: those callbacks found nothing. */
	reason = NC_RD_REASON_NONE;
	if (a->inet_conn.icsk_inet.sk.sk_shutdown || b->inet_conn.icsk_inet.sk.sk_shutdown)
		reason = NC_RD_REASON_CLOSED;
	else if (has_option(a) || has_option(b))
		reason = NC_RD_REASON_SET;
	if (reason)
		leave(p, reason);
	return NC_RD_REASON_NONE;

refused:
	ma->key = mb->key = 0;
	q->error = error;
	/* Of the moment, but for sockets that it never takes: no memory, or a psock on its way out. */
	if (!q->final && error != -22 /* EINVAL */ && error != -95 /* EOPNOTSUPP */)
		return later(q, ma, mb);
	return NC_RD_REASON_KERNEL;
}

#endif
