// SPDX-License-Identifier: GPL-2.0-only
/*
 * Redirection of local TCP connections: join late, leave for good.
 *
 * Membership in a sockmap changes how a socket behaves, and redirecting at the wrong moment
 * reorders or loses bytes. So a connection stays plain TCP until the kernel's own counters show
 * requests and responses (rd_sockops). The joiner, a process, then runs rd_join, which puts both
 * ends into the map if they prove to be each other's peer. From then on rd_msg decides for each
 * message: into the peer's queue, or by TCP. At the first sign of anything but small requests and
 * responses the pair is leaving: every later message goes by TCP, and the ends are taken out of
 * the map as soon as nothing redirected is unread or on its way. A connection that left never
 * comes back.
 *
 * What must hold, and where it is seen to:
 *  S1 A direction turns to redirection only when the reader has everything that went by TCP, and
 *     nobody holds or sleeps on the reader but inside the map's own recv. A blocking recv that began
 *     on plain TCP would not look into the new queue; where such are allowed, one message must have
 *     passed since joining and been read, which shows that it is over: may_turn().
 *  S2 Turning back to TCP is in order: the map's recv empties its own queue first. It returns at the
 *     end of that queue though TCP has more, and a reader that takes a short read for an empty socket
 *     (nginx and tokio, with edge-triggered epoll) would wait for ever. So a direction turns back
 *     only when that queue is empty; till then it redirects what it would pass. Only a reader that
 *     is rd_max_ahead behind makes an exception (rd_msg, AHEAD): the joiner is told, and wakes it
 *     when it has emptied the queue (rd_nudge).
 *  S3 An end leaves the map only when its queue is empty (the kernel discards what is in there)
 *     and no send of the other end is between its verdict and that queue: take_out().
 *  S4 The verdict is never SK_DROP: a helper that fails means TCP, and leaving.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "netctl/abi/redirect.h"

#include "redirect_ends.h"

char LICENSE[] SEC("license") = "GPL";

#define AF_INET 2
#define AF_INET6 10
#define O_NONBLOCK 04000
#define ENOENT 2

#define SECOND 1000000000ULL

/* Set once, before loading; in bytes, messages and nanoseconds. */
const volatile __u32 rd_turns = 16;	     /* segments that prove request and response */
const volatile __u32 rd_max_message = 16384; /* larger ones are streams */
const volatile __u32 rd_max_run = 8;	     /* messages one way without one the other way */
const volatile __u32 rd_max_ahead = 1 << 20; /* redirected and unread */
const volatile __u64 rd_grace_ns = 0;	     /* from joining to the first redirected message */
const volatile __u32 rd_allow_blocking = 0;

#define RD_CGROUP_DEPTH 16

/* Of each end, from its own cgroup upwards; 0 behind the root. */
struct rd_cgroups {
	__u64 ids[2][RD_CGROUP_DEPTH];
};

/* What rules are asked about. */
struct rd_question {
	__u32 bank;
	__u32 family;
	__be32 dst[4];
	__u32 dport;
	__u32 reserved;
	const struct rd_cgroups *cgroups; /* NULL: not known yet */
	__u64 matches; /* bit i: rule i matches, or would if an executable does */
	__u32 verdict; /* enum nc_rd_action */
	__u32 maybe;   /* an allowing rule matches if an unknown does */
	__u32 depends_on_exe;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2 * NC_RD_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} rd_socks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} rd_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct nc_rd_request);
} rd_request SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_rd_stats);
} rd_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NC_RD_BANKS *NC_RD_RULES);
	__type(key, __u32);
	__type(value, struct nc_rd_rule);
} rd_rules SEC(".maps");

/* The rules' texts, by the same index; the programs do not read it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NC_RD_BANKS *NC_RD_RULES);
	__type(key, __u32);
	__type(value, char[256]);
} rd_rule_text SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_rd_conf);
} rd_conf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct nc_rd_event);
	__type(value, struct nc_rd_recent);
} rd_recent SEC(".maps");

/* Working space of rd_join: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rd_cgroups);
} rd_scratch SEC(".maps");

/* Entries of a socket's wait queue with this function are threads asleep in recv or send. */
extern const void woken_wake_function __ksym;

static __always_inline struct nc_rd_stats *stats(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&rd_stats, &zero);
}

#define COUNT(member)                                                                              \
	({                                                                                         \
		struct nc_rd_stats *stats_ = stats();                                              \
		if (stats_)                                                                        \
			stats_->member++;                                                          \
	})

static __always_inline void count_on_tcp(__u32 reason)
{
	struct nc_rd_stats *s = stats();

	if (s && reason < NC_RD_REASONS)
		s->on_tcp[reason]++;
}

static __always_inline struct nc_rd_conf *conf(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&rd_conf, &zero);
}

/* Not inlined, here and below, where a large value would take the caller's stack. */
static __noinline void remember(const struct nc_rd_event *connection, __u32 reason)
{
	struct nc_rd_recent recent = { .reason = reason };

	bpf_map_update_elem(&rd_recent, connection, &recent, BPF_ANY);
}

/* ---- rules ---- */

static __always_inline bool prefix_matches(const struct nc_rd_rule *rule, const __be32 *address)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		int bits = (int)rule->prefix_length - 32 * i;
		__u32 mask = bits <= 0 ? 0 : bits >= 32 ? ~0u : ~0u << (32 - bits);

		if ((address[i] ^ rule->dst[i]) & bpf_htonl(mask))
			return false;
	}
	return true;
}

static __always_inline bool under(const __u64 *ids, __u64 cgroup)
{
	for (int i = 0; i < RD_CGROUP_DEPTH; i++)
		if (ids[i] == cgroup)
			return true;
	return false;
}

/* bpf_loop callback: stops at the rule that decides. */
static long ask_rule(__u32 i, struct rd_question *q)
{
	__u32 index = q->bank * NC_RD_RULES + i;
	const struct nc_rd_rule *rule = bpf_map_lookup_elem(&rd_rules, &index);
	bool known = true;

	if (!rule || rule->action == NC_RD_END)
		return 1;
	if (q->dport < rule->dport_low || q->dport > rule->dport_high)
		return 0;
	if (rule->family && (rule->family != q->family || !prefix_matches(rule, q->dst)))
		return 0;
	if (rule->cgroup) {
		if (!q->cgroups)
			known = false;
		else if (!under(q->cgroups->ids[0], rule->cgroup) &&
			 !under(q->cgroups->ids[1], rule->cgroup))
			return 0;
	}
	if (rule->exe_inode) {
		known = false;
		q->depends_on_exe = 1;
	}
	if (i < 64)
		q->matches |= 1ULL << i;
	if (known) {
		q->verdict = rule->action;
		return 1;
	}
	if (rule->action == NC_RD_ALLOW)
		q->maybe = 1;
	return 0;
}

/* Whether a connection is allowed, or may be once executables and cgroups are known. */
static __always_inline bool ask_rules(struct rd_question *q)
{
	q->matches = 0;
	q->verdict = NC_RD_END;
	q->maybe = 0;
	q->depends_on_exe = 0;
	bpf_loop(NC_RD_RULES, ask_rule, q, 0);
	return q->verdict == NC_RD_ALLOW || q->maybe;
}

struct rd_judgement {
	struct nc_rd_pair *pair;
	__u32 bank;
	__u32 verdict;
};

static __always_inline bool runs(const struct nc_rd_process *process, const struct nc_rd_rule *rule)
{
	return process->exe_inode == rule->exe_inode && process->exe_device == rule->exe_device;
}

/* bpf_loop callback over the rules that match but for their executable. */
static long judge_rule(__u32 i, struct rd_judgement *j)
{
	__u32 index = j->bank * NC_RD_RULES + i;
	const struct nc_rd_rule *rule;

	if (i > 63 || !(j->pair->rules & 1ULL << i))
		return 0;
	rule = bpf_map_lookup_elem(&rd_rules, &index);
	if (!rule)
		return 1;
	if (rule->exe_inode && !runs(&j->pair->process[0], rule) &&
	    !runs(&j->pair->process[1], rule))
		return 0;
	j->verdict = rule->action;
	return 1;
}

/* ---- leaving ---- */

static __always_inline bool queue_empty(__u64 psock)
{
	struct sk_psock *ps = (void *)psock;
	struct list_head *next = NULL;

	READ(next, &ps->ingress_msg.next);
	return next == &ps->ingress_msg;
}

#define MANY 1000

/* Threads asleep in recv or send on a socket; MANY if the wait queue is too long to tell. */
static __always_inline int sleepers(__u64 socket)
{
	struct sock *sk = (void *)socket;
	struct list_head *head, *entry = NULL;
	struct socket_wq *wq = NULL;
	int n = 0;

	READ(wq, &sk->sk_wq);
	if (!wq)
		return 0;
	head = &wq->wait.head;
	READ(entry, &head->next);
#pragma unroll
	for (int i = 0; i < 8; i++) {
		struct wait_queue_entry *wait;
		void *function = NULL;

		if (!entry || entry == head)
			return n;
		wait = (void *)entry - bpf_core_field_offset(struct wait_queue_entry, entry);
		READ(function, &wait->func);
		if (function == &woken_wake_function)
			n++;
		READ(entry, &entry->next);
	}
	return MANY;
}

/* No send of an end holds its psock, other than threads asleep in it. */
static __always_inline bool idle(const struct nc_rd_pair *p, __u32 i)
{
	struct sk_psock *ps = (void *)p->psock[i & 1];
	int references = 0, n;

	if (gone(p->socket[i & 1], p->psock[i & 1]))
		return true;
	READ(references, &ps->refcnt);
	n = sleepers(p->socket[i & 1]);
	return n != MANY && references <= !!(p->live & 1 << (i & 1)) + n;
}

/* The pair is out of the map: its counters go to the totals, its story to `recent`. */
static __noinline void close_pair(struct nc_rd_pair *p)
{
	struct nc_rd_event key = { .netns = p->netns, .end = p->end };
	struct nc_rd_stats *s = stats();
	struct nc_rd_recent recent = {};

	if (s) {
		s->redirected_messages += p->redirected_messages[0] + p->redirected_messages[1];
		s->redirected_bytes += p->redirected_bytes[0] + p->redirected_bytes[1];
		s->passed_messages += p->passed_messages[0] + p->passed_messages[1];
		s->passed_bytes += p->passed_bytes[0] + p->passed_bytes[1];
	}
	recent.reason = p->reason;
	recent.was_joined = 1;
	__builtin_memcpy(recent.process, p->process, sizeof(recent.process));
	__builtin_memcpy(recent.redirected_messages, p->redirected_messages,
			 sizeof(recent.redirected_messages));
	__builtin_memcpy(recent.redirected_bytes, p->redirected_bytes,
			 sizeof(recent.redirected_bytes));
	if (p->reason != NC_RD_REASON_CLOSED)
		bpf_map_update_elem(&rd_recent, &key, &recent, BPF_ANY);
	p->redirected_messages[0] = p->redirected_messages[1] = 0;
	p->redirected_bytes[0] = p->redirected_bytes[1] = 0;
	p->passed_messages[0] = p->passed_messages[1] = 0;
	p->passed_bytes[0] = p->passed_bytes[1] = 0;
	p->freed_ns = bpf_ktime_get_ns();
	barrier();
	p->state = NC_RD_FREE;
}

/*
 * Takes the ends of a leaving pair out of the map as far as S3 allows; true once both are out.
 * The kernel lets sock_ops, and timers and tests of traffic classifiers, delete; not sk_msg.
 *
 * An end's sends that were decided before the pair began to leave hold a reference to the end's
 * psock. So none is on its way if all references are the map's and those of threads asleep in it.
 */
static __noinline bool take_out(struct nc_rd_pair *p, __u32 slot)
{
	__u32 live;

	if (p->state != NC_RD_LEAVING)
		return true;
	if (__sync_val_compare_and_swap(&p->busy, 0ULL, 1ULL))
		return false;
	if (p->state != NC_RD_LEAVING) { /* another was quicker */
		__sync_val_compare_and_swap(&p->busy, 1ULL, 0ULL);
		return true;
	}
	live = p->live;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		__u32 o = !i, index = 2 * slot + i;

		if (!(live & 1 << i))
			continue;
		if (gone(p->socket[i], p->psock[i])) {
			live &= ~(1 << i);
			continue;
		}
		if (p->redirecting[o]) {
			if (!queue_empty(p->psock[i]))
				continue;
			/* From here on it passes; a send that was decided before has a reference. */
			__sync_val_compare_and_swap(&p->redirecting[o], 1ULL, 0ULL);
		}
		if (!p->clean[o]) {
			struct sk_psock *ps = (void *)p->psock[o];
			int references = 0, n;

			if (!gone(p->socket[o], p->psock[o])) {
				READ(references, &ps->refcnt);
				n = sleepers(p->socket[o]);
				if (n == MANY || references > !!(live & 1 << o) + n)
					continue;
			}
			p->clean[o] = 1;
		}
		if (!queue_empty(p->psock[i]))
			continue;
		if (bpf_map_delete_elem(&rd_socks, &index))
			COUNT(helper_failed);
		live &= ~(1 << i);
		COUNT(removed);
	}
	p->live = live;
	if (!live)
		close_pair(p);
	__sync_val_compare_and_swap(&p->busy, 1ULL, 0ULL);
	return !live;
}

/* When no callback of the connection comes, at 1, 2, 4 … ms, then every second. */
static int on_timer(void *map, __u32 *slot, struct nc_rd_pair *p)
{
	if (p->state != NC_RD_LEAVING)
		return 0;
	if (take_out(p, *slot)) {
		COUNT(removed_by_timer);
	} else {
		if (p->tries < 10)
			p->tries++;
		if (bpf_timer_start(&p->timer, 1000000ULL << p->tries, 0))
			COUNT(helper_failed);
	}
	return 0;
}

static __always_inline void leave(struct nc_rd_pair *p, __u32 reason)
{
	if (__sync_val_compare_and_swap(&p->state, (__u64)NC_RD_JOINED, (__u64)NC_RD_LEAVING) !=
	    NC_RD_JOINED)
		return;
	p->reason = reason;
	count_on_tcp(reason);
	if (bpf_timer_start(&p->timer, 1000000, 0))
		COUNT(helper_failed);
}

/* ---- observing ---- */

/*
 * Ours among the callback flags, which all sock_ops programs of a socket share: also another
 * netctl's, as the self-test's in a cgroup below ours. The one that set them first has the
 * connection. Retransmissions cost nothing and tell us from others who ask for RTT callbacks.
 */
#define OBSERVE (BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG)
#define PASSIVE BPF_SOCK_OPS_RTO_CB_FLAG /* costs nothing, and tells rd_join who connected */
#define JOINED (BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG)

/* Keeps clang from merging accesses to the context, which the verifier refuses. */
#define FIELD(member)                                                                              \
	({                                                                                         \
		__u32 value_ = ctx->member;                                                        \
		barrier_var(value_);                                                               \
		value_;                                                                            \
	})

static __always_inline void set_flags(struct bpf_sock_ops *ctx, __u32 flags)
{
	__u32 others = FIELD(bpf_sock_ops_cb_flags) & ~(OBSERVE | PASSIVE | JOINED);

	bpf_sock_ops_cb_flags_set(ctx, others | flags);
}

static __always_inline void fill_end(struct bpf_sock_ops *ctx, struct nc_rd_end *e)
{
	__u32 family = FIELD(family);

	e->local_port = FIELD(local_port);
	e->remote_port = bpf_ntohl(FIELD(remote_port));
	e->local[1] = e->local[2] = e->local[3] = 0;
	e->remote[1] = e->remote[2] = e->remote[3] = 0;
	if (family == AF_INET) {
		e->family = 4;
		e->local[0] = FIELD(local_ip4);
		e->remote[0] = FIELD(remote_ip4);
		return;
	}
	e->family = 6;
	e->local[0] = FIELD(local_ip6[0]);
	e->local[1] = FIELD(local_ip6[1]);
	e->local[2] = FIELD(local_ip6[2]);
	e->local[3] = FIELD(local_ip6[3]);
	e->remote[0] = FIELD(remote_ip6[0]);
	e->remote[1] = FIELD(remote_ip6[1]);
	e->remote[2] = FIELD(remote_ip6[2]);
	e->remote[3] = FIELD(remote_ip6[3]);
	if (!e->remote[0] && !e->remote[1] && e->remote[2] == bpf_htonl(0xffff)) {
		e->family = 4;
		e->local[0] = e->local[3];
		e->remote[0] = e->remote[3];
		e->local[2] = e->local[3] = e->remote[2] = e->remote[3] = 0;
	}
}

/*
 * Loopback, or the same address at both ends. Others may be local too: in another namespace, which
 * is asked for with NC_RD_CROSS_NETNS; else those stay on TCP.
 */
static __always_inline bool local_only(const struct nc_rd_end *e)
{
	if (e->family == 4)
		return (e->remote[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) ||
		       e->remote[0] == e->local[0];
	return e->remote[0] == e->local[0] && e->remote[1] == e->local[1] &&
	       e->remote[2] == e->local[2] && e->remote[3] == e->local[3];
}

static __always_inline bool observed(struct bpf_sock_ops *ctx)
{
	return (FIELD(bpf_sock_ops_cb_flags) & OBSERVE) == OBSERVE;
}

/* Whether the rules allow it, or may once executables and cgroups are known. */
static __always_inline bool wanted(struct bpf_sock_ops *ctx, struct nc_rd_conf *c, bool passive)
{
	struct rd_question q = {};
	struct nc_rd_end end;

	fill_end(ctx, &end);
	if (!local_only(&end) && !(c->flags & NC_RD_CROSS_NETNS))
		return false;
	q.bank = c->bank & 1;
	q.family = end.family;
	__builtin_memcpy(q.dst, passive ? end.local : end.remote, sizeof(q.dst));
	q.dport = passive ? end.local_port : end.remote_port;
	return ask_rules(&q);
}

/* Leaves a connection, and the flags, to the other netctl that observes it. */
static __always_inline void hands_off(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct rd_mine *mine = bpf_sk_storage_get(&rd_mine, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!mine) {
		COUNT(helper_failed);
		return;
	}
	mine->index = NOT_JOINED;
	mine->refused = 1;
	mine->foreign = 1;
}

static __always_inline void stays(struct bpf_sock_ops *ctx, __u32 reason)
{
	struct nc_rd_event key = {};

	count_on_tcp(reason);
	key.netns = bpf_get_netns_cookie(ctx);
	fill_end(ctx, &key.end);
	remember(&key, reason);
}

static __always_inline void on_established(struct bpf_sock_ops *ctx, bool passive)
{
	struct nc_rd_conf *c = conf();
	struct bpf_sock *sk;

	if (!c || c->flags & NC_RD_DRAINING)
		return;
	if (observed(ctx)) {
		sk = ctx->sk;
		if (sk)
			hands_off(ctx, sk);
		if (!passive && wanted(ctx, c, passive))
			stays(ctx, NC_RD_REASON_ULP);
		return;
	}
	if (wanted(ctx, c, passive))
		set_flags(ctx, passive ? OBSERVE | PASSIVE : OBSERVE);
}

/* The kernel's own counters are all there is to a connection that is being observed. */
static __always_inline void observe(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
				    struct rd_mine *mine, __u32 out, __u32 in)
{
	struct nc_rd_conf *c = conf();
	struct nc_rd_event *event;

	if (!c || (mine && mine->foreign))
		return;

	/* Who connected counts its SYN among the acknowledged bytes. */
	if (out > 2 * in + 8 || in > 2 * out + 8 ||
	    ctx->bytes_acked > (__u64)out * rd_max_message + 1 ||
	    ctx->bytes_received > (__u64)in * rd_max_message) {
		set_flags(ctx, 0);
		stays(ctx, NC_RD_REASON_STREAM);
		return;
	}
	if (mine) { /* announced, and not joined yet: the joiner may be waiting for a CPU */
		if (mine->refused || (!(++mine->waited % 256) &&
				      bpf_ktime_get_ns() - mine->announced_ns > 2 * SECOND))
			set_flags(ctx, 0);
		return;
	}
	if (!wanted(ctx, c, FIELD(bpf_sock_ops_cb_flags) & PASSIVE)) {
		hands_off(ctx, sk);
		return;
	}
	mine = bpf_sk_storage_get(&rd_mine, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!mine) {
		COUNT(helper_failed);
		return;
	}
	mine->index = NOT_JOINED;
	mine->announced_ns = bpf_ktime_get_ns();
	/* Both ends must have these before they join: the first message may make them leave. */
	set_flags(ctx, FIELD(bpf_sock_ops_cb_flags) & PASSIVE ? OBSERVE | PASSIVE | JOINED :
								OBSERVE | JOINED);
	event = bpf_ringbuf_reserve(&rd_events, sizeof(*event), 0);
	if (!event) {
		set_flags(ctx, 0);
		stays(ctx, NC_RD_REASON_LOST);
		return;
	}
	event->netns = bpf_get_netns_cookie(ctx);
	fill_end(ctx, &event->end);
	COUNT(announced);
	bpf_ringbuf_submit(event, 0);
}

#define SOL_SOCKET 1
#define SOL_IP 0
#define SOL_TCP 6
#define SOL_IPV6 41

#include "redirect_to.h"

SEC("sockops")
int rd_sockops(struct bpf_sock_ops *ctx)
{
	struct rd_mine *mine;
	struct nc_rd_pair *p;
	struct bpf_sock *sk;
	__u32 op = ctx->op, slot, out, in;

	if (op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		on_established(ctx, op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB);
		return 1;
	}
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		on_connect(ctx);
		return 1;
	}
	if (op != BPF_SOCK_OPS_RTT_CB && op != BPF_SOCK_OPS_HDR_OPT_LEN_CB &&
	    op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	sk = ctx->sk;
	if (!sk)
		return 1;
	out = FIELD(data_segs_out);
	in = FIELD(data_segs_in);
	if (op == BPF_SOCK_OPS_RTT_CB && out < rd_turns)
		return 1;
	mine = bpf_sk_storage_get(&rd_mine, sk, NULL, 0);
	if (!mine || mine->index == NOT_JOINED) {
		/* Without our mark the callback is another program's wish. */
		if (op == BPF_SOCK_OPS_RTT_CB && observed(ctx))
			observe(ctx, sk, mine, out, in);
		return 1;
	}
	slot = mine->index >> 1;
	p = bpf_map_lookup_elem(&rd_pairs, &slot);
	if (!p || p->key != mine->key || p->state == NC_RD_FREE) {
		set_flags(ctx, 0);
		return 1;
	}
	if (op == BPF_SOCK_OPS_STATE_CB)
		leave(p, NC_RD_REASON_CLOSED);
	if (p->state == NC_RD_LEAVING && take_out(p, slot))
		set_flags(ctx, 0);
	return 1;
}

/* ---- each message of a joined socket ---- */

static __always_inline void note_process(struct nc_rd_process *process)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct inode *inode = BPF_CORE_READ(task, mm, exe_file, f_inode);

	process->exe_inode = BPF_CORE_READ(inode, i_ino);
	process->exe_device = BPF_CORE_READ(inode, i_sb, s_dev);
	/* Older kernels have no bpf_get_current_comm() in sk_msg. */
	BPF_CORE_READ_INTO(&process->name, task, comm);
	process->pid = bpf_get_current_pid_tgid() >> 32;
}

/* Both executables are known: rules that name one are asked now. */
static __always_inline bool still_allowed(struct nc_rd_pair *p)
{
	struct rd_judgement j = { .pair = p };
	struct nc_rd_conf *c = conf();

	if (!c || c->generation != p->generation)
		return false;
	j.bank = c->bank & 1;
	bpf_loop(NC_RD_RULES, judge_rule, &j, 0);
	return j.verdict == NC_RD_ALLOW;
}

/* Asked only until a direction has turned. */
static __always_inline bool never_pass(void)
{
	struct nc_rd_conf *c = conf();

	return c && c->flags & NC_RD_NEVER_PASS;
}

/* S1. `me` is the sender, `other` the reader. */
static __always_inline bool may_turn(struct nc_rd_pair *p, struct bpf_sock *sk, __u32 me,
				     __u32 other)
{
	struct tcp_sock *sender = bpf_skc_to_tcp_sock(sk);
	struct tcp_sock *reader = (void *)p->socket[other];
	struct sk_psock *psock = (void *)p->psock[other];
	__u32 copied = 0;
	int owned = 0, before = 0, after = 0, asleep;

	if (!sender || (rd_allow_blocking && !p->passed[me]) ||
	    (rd_grace_ns && !never_pass() && bpf_ktime_get_ns() - p->joined_ns < rd_grace_ns))
		return false;
	READ(copied, &reader->copied_seq);
	if (copied != sender->write_seq)
		return false;
	READ(before, &psock->refcnt);
	READ(owned, &reader->inet_conn.icsk_inet.sk.sk_lock.owned);
	asleep = sleepers(p->socket[other]);
	READ(after, &psock->refcnt);
	return !owned && before == after && before == 1 + asleep;
}

static __always_inline bool nonblocking(struct nc_rd_pair *p, __u32 i)
{
	__u32 flags = 0;

	READ(flags, (void *)p->file_flags[i]);
	return flags & O_NONBLOCK;
}

static __noinline void tell_behind(struct nc_rd_pair *p, __u32 slot, __u32 reader)
{
	struct nc_rd_behind behind = { .key = p->key, .slot = slot, .end = reader };

	p->behind |= 1 << reader;
	if (bpf_ringbuf_output(&rd_events, &behind, sizeof(behind), 0))
		COUNT(helper_failed);
}

SEC("sk_msg")
int rd_msg(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct rd_mine *mine;
	struct nc_rd_pair *p;
	__u32 slot, me, other, size = msg->size, thread, index;
	bool empty;

	if (!sk)
		return SK_PASS;
	mine = bpf_sk_storage_get(&rd_mine, sk, NULL, 0);
	if (!mine || mine->index == NOT_JOINED)
		return SK_PASS;
	slot = mine->index >> 1;
	me = mine->index & 1;
	other = me ^ 1;
	index = mine->index ^ 1;
	p = bpf_map_lookup_elem(&rd_pairs, &slot);
	if (!p || p->key != mine->key)
		return SK_PASS;
	thread = bpf_get_current_pid_tgid();
	empty = queue_empty(p->psock[other]);
	if (empty)
		p->ahead[me] = 0;

	if (p->state == NC_RD_JOINED) {
		if (!p->process[me].pid)
			note_process(&p->process[me]);
		if (p->last != me) {
			p->last = me;
			p->run = 0;
		}
		if (++p->run > rd_max_run && empty)
			leave(p, NC_RD_REASON_RUN);
		else if (size > rd_max_message)
			leave(p, NC_RD_REASON_BIG);
		else if (!rd_allow_blocking && !(nonblocking(p, me) && nonblocking(p, other)))
			leave(p, NC_RD_REASON_TURNED);
	}
	/* S2: a pair that is leaving goes on redirecting what is behind something unread. */
	if (p->state != NC_RD_JOINED && (empty || !p->redirecting[me]))
		goto clean;
	if (p->ahead[me] + size > p->limit[me]) {
		leave(p, NC_RD_REASON_AHEAD);
		goto clean;
	}
	if (!p->redirecting[me]) {
		if (!p->judged) {
			if (!p->process[other].pid)
				goto pass;
			if (!still_allowed(p)) {
				leave(p, NC_RD_REASON_RULE);
				goto clean;
			}
			p->judged = 1;
		}
		if (!may_turn(p, sk, me, other)) {
			if (!never_pass())
				goto pass;
			leave(p, NC_RD_REASON_BUSY);
			goto clean;
		}
		p->redirecting[me] = 1;
		COUNT(turns);
	}
	if (p->thread[me] != thread) {
		if (p->thread[me])
			p->threads[me] = 1;
		p->thread[me] = thread;
	}
	p->ahead[me] += size;
	if (bpf_msg_redirect_map(msg, &rd_socks, index, BPF_F_INGRESS) != SK_PASS) {
		leave(p, NC_RD_REASON_FAILED);
		goto clean;
	}
	p->redirected_messages[me]++;
	p->redirected_bytes[me] += size;
	return SK_PASS;

clean:
	p->redirecting[me] = 0;
	barrier();
	/* The only thread that ever redirected is sending again: its earlier sends have arrived. */
	if (!p->threads[me] && (!p->thread[me] || p->thread[me] == thread))
		p->clean[me] = 1;
	if (!empty && !(p->behind & 1 << other))
		tell_behind(p, slot, other);
pass:
	p->passed[me] = 1;
	p->passed_messages[me]++;
	p->passed_bytes[me] += size;
	return SK_PASS;
}

/* ---- options set later ---- */

/* Options that mean the same to a joined socket; whatever is not here makes it leave. */
static __always_inline bool harmless(int level, int option)
{
	if (level == SOL_IP || level == SOL_IPV6)
		return true;
	if (level == SOL_SOCKET)
		switch (option) {
		case 1:	 /* SO_DEBUG */
		case 2:	 /* SO_REUSEADDR */
		case 5:	 /* SO_DONTROUTE */
		case 6:	 /* SO_BROADCAST */
		case 7:	 /* SO_SNDBUF */
		case 9:	 /* SO_KEEPALIVE */
		case 12: /* SO_PRIORITY */
		case 13: /* SO_LINGER */
		case 15: /* SO_REUSEPORT */
		case 20: /* SO_RCVTIMEO */
		case 21: /* SO_SNDTIMEO */
		case 36: /* SO_MARK */
		case 46: /* SO_BUSY_POLL */
		case 66: /* SO_RCVTIMEO_NEW */
		case 67: /* SO_SNDTIMEO_NEW */
			return true;
		}
	if (level == SOL_TCP)
		switch (option) {
		case 1:	 /* TCP_NODELAY */
		case 3:	 /* TCP_CORK */
		case 4:	 /* TCP_KEEPIDLE */
		case 5:	 /* TCP_KEEPINTVL */
		case 6:	 /* TCP_KEEPCNT */
		case 8:	 /* TCP_LINGER2 */
		case 12: /* TCP_QUICKACK */
		case 13: /* TCP_CONGESTION */
		case 18: /* TCP_USER_TIMEOUT */
		case 25: /* TCP_NOTSENT_LOWAT */
			return true;
		}
	return false;
}

SEC("cgroup/setsockopt")
int rd_setsockopt(struct bpf_sockopt *ctx)
{
	int level = ctx->level, option = ctx->optname;
	struct rd_mine *mine = NULL;
	struct nc_rd_pair *p;
	struct bpf_sock *sk;
	__u32 slot;

	/* The caller's value, whatever its length, goes to the kernel as it is. */
	ctx->optlen = 0;
	if (harmless(level, option))
		return 1;
	sk = ctx->sk;
	if (sk)
		mine = bpf_sk_storage_get(&rd_mine, sk, NULL, 0);
	if (!mine)
		return 1;
	if (mine->index == NOT_JOINED)
		return 1; /* rd_join looks at the options themselves */
	slot = mine->index >> 1;
	p = bpf_map_lookup_elem(&rd_pairs, &slot);
	if (!p || p->key != mine->key || p->state == NC_RD_FREE)
		return 1;
	leave(p, NC_RD_REASON_SET);
	/*
	 * With redirected bytes unread, the low-water mark would count only those behind them, and a
	 * reader of both could wait for ever. It is not set then: the reader is woken too early, which
	 * it must expect anyway.
	 */
	if (level == SOL_SOCKET && option == 18 /* SO_RCVLOWAT */ &&
	    !(queue_empty(p->psock[mine->index & 1]) && idle(p, !(mine->index & 1)))) {
		ctx->optlen = -1;
		return 1;
	}
	/*
	 * kTLS would take redirected bytes for deciphered ones. A kernel without kTLS answers the
	 * same, and TLS libraries then go on in userspace.
	 */
	if (level == SOL_TCP && option == 31 /* TCP_ULP */) {
		bpf_set_retval(-ENOENT);
		return 0;
	}
	return 1;
}

/* ---- joining: run by the joiner with BPF_PROG_TEST_RUN ---- */

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

/* Why one end must stay on TCP; its flags word's address otherwise. */
static __always_inline __u32 unsuited(struct tcp_sock *tp, __u64 netns, __u64 *file_flags)
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
	if (pointer)
		return NC_RD_REASON_ULP;
	READ(pointer, &tp->inet_conn.icsk_ulp_ops);
	if (pointer)
		return NC_RD_REASON_ULP;
	READ(pointer, &sk->sk_filter);
	if (pointer)
		return NC_RD_REASON_OPTION;
	if (sk->sk_rcvlowat > 1 || sk->sk_tsflags || sk->sk_peek_off >= 0 || tp->urg_data ||
	    sk->sk_max_pacing_rate != ~0UL || BPF_CORE_READ_BITFIELD(tp, repair) ||
	    BPF_CORE_READ_BITFIELD(tp, recvmsg_inq))
		return NC_RD_REASON_OPTION;
	if (sk->__sk_common.skc_flags &
	    (FLAG(SOCK_ZEROCOPY) | FLAG(SOCK_URGINLINE) | FLAG(SOCK_RCVTSTAMP) |
	     FLAG(SOCK_RCVTSTAMPNS) | FLAG(SOCK_TXTIME) | FLAG(SOCK_FASYNC)))
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

static __u64 rd_serial;

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

	reason = unsuited(a, q->event.netns, &file_flags[0]);
	if (!reason)
		reason = unsuited(b, q->peer_netns, &file_flags[1]);
	if (reason) {
		ma->refused = mb->refused = 1;
		return reason;
	}

	p = find_room(&q->slot);
	if (!p)
		return NC_RD_REASON_FULL;
	p->key = ++rd_serial;
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
	p->ahead[0] = p->ahead[1] = p->redirecting[0] = p->redirecting[1] = 0;
	p->thread[0] = p->thread[1] = p->threads[0] = p->threads[1] = 0;
	p->passed[0] = p->passed[1] = p->clean[0] = p->clean[1] = 0;
	p->behind = 0;

	/* A timer that was set up before stays so. */
	error = bpf_timer_init(&p->timer, &rd_pairs, 1 /* CLOCK_MONOTONIC */);
	if (!error)
		error = bpf_timer_set_callback(&p->timer, on_timer);
	else if (error == -16 /* EBUSY */)
		error = bpf_timer_set_callback(&p->timer, on_timer);
	if (error)
		goto refused;

	/* Not joined yet: until the storage says so, rd_msg passes. */
	index = 2 * q->slot;
	error = bpf_map_update_elem(&rd_socks, &index, sa, BPF_NOEXIST);
	if (error)
		goto refused;
	index++;
	error = bpf_map_update_elem(&rd_socks, &index, sb, BPF_NOEXIST);
	if (error) {
		index--;
		bpf_map_delete_elem(&rd_socks, &index);
		goto refused;
	}
	p->psock[0] = psock_of(a);
	p->psock[1] = psock_of(b);
	p->joined_ns = bpf_ktime_get_ns();
	p->live = 3;
	ma->key = mb->key = p->key;
	barrier();
	p->state = NC_RD_JOINED;
	barrier();
	ma->index = 2 * q->slot;
	mb->index = 2 * q->slot + 1;
	COUNT(joined);
	/* Shut down, or an option set, between the look and now: those callbacks found nothing. */
	reason = a->inet_conn.icsk_inet.sk.sk_shutdown || b->inet_conn.icsk_inet.sk.sk_shutdown ?
			 NC_RD_REASON_CLOSED :
			 NC_RD_REASON_NONE;
	if (reason)
		leave(p, reason);
	return NC_RD_REASON_NONE;

refused:
	q->error = error;
	return NC_RD_REASON_KERNEL;
}

SEC("tc")
int rd_join(struct __sk_buff *skb)
{
	struct bpf_sock *sa = NULL, *sb = NULL;
	struct nc_rd_request *q;
	struct nc_rd_conf *c = conf();
	__u32 zero = 0, reason;

	q = bpf_map_lookup_elem(&rd_request, &zero);
	if (!q || !c)
		return 1;
	q->error = 0;
	reason = NC_RD_REASON_DISABLED;
	if (c->flags & NC_RD_DRAINING)
		goto done;
	reason = NC_RD_REASON_NO_PEER;
	sa = find(skb, &q->event.end, false, BPF_F_CURRENT_NETNS);
	if (!sa)
		goto done;
	sb = find(skb, &q->event.end, true, q->peer_nsid);
	if (sb)
		reason = join(q, sa, sb, c);
done:
	if (sb)
		bpf_sk_release(sb);
	if (sa)
		bpf_sk_release(sa);
	q->reason = reason;
	/* Read back, so that the verifier follows what comes once, and not once for each reason. */
	reason = *(volatile __u32 *)&q->reason;
	if (q->tentative && (reason == NC_RD_REASON_NO_PEER || reason == NC_RD_REASON_IDENTITY))
		return 0;
	/* FULL counts once, when the joiner has searched everywhere and says so in `state`. */
	if (reason && reason != NC_RD_REASON_AGAIN && (reason != NC_RD_REASON_FULL || q->state)) {
		count_on_tcp(reason);
		remember(&q->event, reason);
	}
	return 0;
}

/* Makes the pair in a slot leave; run until the answer is NC_RD_FREE. */
SEC("tc")
int rd_leave(struct __sk_buff *skb)
{
	struct nc_rd_request *q;
	struct nc_rd_pair *p;
	__u32 one = 1, slot;

	q = bpf_map_lookup_elem(&rd_request, &one);
	if (!q)
		return 1;
	slot = q->slot;
	p = bpf_map_lookup_elem(&rd_pairs, &slot);
	if (!p)
		return 1;
	leave(p, q->reason);
	take_out(p, slot);
	q->state = p->state;
	return 0;
}

/*
 * Of all sockets of a namespace, wakes one that is to look again. To set the low-water mark, be it to
 * what it is, makes TCP report what is readable, as if it came now.
 */
SEC("iter/tcp")
int rd_nudge(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct nc_rd_request *q;
	struct nc_rd_pair *p;
	struct tcp_sock *tp;
	__u32 zero = 0, slot, reader;
	int mark = 1;

	q = bpf_map_lookup_elem(&rd_request, &zero);
	if (!q || !common)
		return 0;
	slot = q->slot;
	reader = q->reason & 1;
	p = bpf_map_lookup_elem(&rd_pairs, &slot);
	if (!p || p->socket[reader] != (__u64)common)
		return 0;
	if (!gone(p->socket[reader], p->psock[reader]) && !queue_empty(p->psock[reader])) {
		q->state = NC_RD_NUDGE_UNREAD;
		return 0;
	}
	tp = bpf_skc_to_tcp_sock(common);
	if (!tp)
		return 0;
	mark = tp->inet_conn.icsk_inet.sk.sk_rcvlowat;
	if (bpf_setsockopt(tp, SOL_SOCKET, 18 /* SO_RCVLOWAT */, &mark, sizeof(mark)))
		COUNT(helper_failed);
	q->state = NC_RD_NUDGE_DONE;
	return 0;
}
