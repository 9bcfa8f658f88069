/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Connections to one address go to another: `netctl redirect to`. Part of redirect.bpf.c.
 *
 * connect() is given the target's address in the place of the one it was called with, and so is
 * each datagram of a socket that is not connected. The client's getpeername() and recvfrom() tell
 * the latter, and so does the server's SO_ORIGINAL_DST, which proxies ask for and which else only
 * netfilter answers. A process that has the target's socket open, listening, is left alone: its own
 * connections would come back to itself.
 */
#ifndef NETCTL_REDIRECT_TO_H
#define NETCTL_REDIRECT_TO_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "netctl/abi/redirect.h"

#include "redirect_ends.h"
#include "redirect_observe.h"
#include "redirect_state.h"

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define ECONNREFUSED 111
#define SO_ORIGINAL_DST 80 /* of SOL_IP; IP6T_SO_ORIGINAL_DST of SOL_IPV6 has the same number */

/* Of a socket whose datagrams went to other addresses: which, and what was asked for. */
struct rd_to_sent {
	__u32 next; /* whose turn it is to make room */
	__u32 reserved;
	struct nc_rd_to_way to[NC_RD_TO_SENT];
};

/* A rewritten TCP connection; `client` and `target` are its addresses in packets. */
struct rd_to_key {
	__u64 netns;
	__u32 family;
	__u32 reserved;
	__be32 client[4];
	__be32 target[4];
	__u16 client_port; /* host byte order, as in nc_rd_end */
	__u16 target_port;
	__u32 reserved2;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NC_RD_BANKS *NC_RD_TO_RULES);
	__type(key, __u32);
	__type(value, struct nc_rd_to);
} rd_to SEC(".maps");

/* Their texts; the programs do not read it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NC_RD_BANKS *NC_RD_TO_RULES);
	__type(key, __u32);
	__type(value, char[256]);
} rd_to_text SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct nc_rd_to_mine);
} rd_to_mine SEC(".maps");

/* Apart from the former: TCP and connected sockets need not have the room. Used under the socket's lock. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct rd_to_sent);
} rd_to_sent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_rd_to_stats);
} rd_to_stats SEC(".maps");

#define COUNT_TO(member)                                                                           \
	({                                                                                         \
		__u32 zero_ = 0;                                                                   \
		struct nc_rd_to_stats *to_stats_ = bpf_map_lookup_elem(&rd_to_stats, &zero_);      \
		if (to_stats_)                                                                     \
			to_stats_->member++;                                                       \
	})

/* What SO_ORIGINAL_DST answers. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct rd_to_key);
	__type(value, struct nc_rd_name);
} rd_to_known SEC(".maps");

struct rd_to_question {
	struct nc_rd_name name;
	__u32 protocol;
	__u32 bank;
	struct nc_rd_to found; /* its target is the chosen one */
	__u32 number;	       /* of that among the rule's */
	/* Of the loops over targets. */
	__u32 sum;
	__u32 at;
	__u32 only_up;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NC_RD_BANKS *NC_RD_TO_RULES *NC_RD_TO_TARGETS);
	__type(key, struct nc_rd_to_target_key);
	__type(value, struct nc_rd_to_target);
} rd_to_targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NC_RD_BANKS *NC_RD_TO_RULES *NC_RD_TO_TARGETS);
	__type(key, struct nc_rd_to_target_key);
	__type(value, struct nc_rd_to_health);
} rd_to_health SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NC_RD_BANKS *NC_RD_TO_RULES);
	__type(key, __u32);
	__type(value, struct nc_rd_to_failed);
} rd_to_failed SEC(".maps");

static __always_inline bool task_is_under(__u64 wanted)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);

	for (int i = 0; i < RD_CGROUP_DEPTH; i++) {
		struct cgroup_subsys_state *parent;

		if (!cgroup)
			return false;
		if (BPF_CORE_READ(cgroup, kn, id) == wanted)
			return true;
		parent = BPF_CORE_READ(cgroup, self.parent);
		if (!parent)
			return false;
		cgroup = (void *)parent - bpf_core_field_offset(struct cgroup, self);
	}
	return false;
}

/* bpf_loop callback: stops at the first rule that matches. */
static long ask_to(__u32 i, struct rd_to_question *q)
{
	__u32 index = q->bank * NC_RD_TO_RULES + i;
	const struct nc_rd_to *rule = bpf_map_lookup_elem(&rd_to, &index);
	__u32 port = bpf_ntohs(q->name.port);

	if (!rule || !rule->used)
		return 1;
	if (rule->family != q->name.family || port < rule->dport_low || port > rule->dport_high ||
	    (rule->protocol && rule->protocol != q->protocol))
		return 0;
#pragma unroll
	for (int w = 0; w < 4; w++) {
		int bits = (int)rule->prefix_length - 32 * w;
		__u32 mask = bits <= 0 ? 0 : bits >= 32 ? ~0u : ~0u << (32 - bits);

		if ((q->name.ip[w] ^ rule->dst[w]) & bpf_htonl(mask))
			return 0;
	}
	if (rule->cgroup && !task_is_under(rule->cgroup))
		return 0;
	q->found = *rule;
	return 1;
}

struct rd_holder {
	struct file *wanted;
	struct file **files;
	__u32 found;
	__u32 reserved;
};

static long look_at_file(__u32 i, struct rd_holder *h)
{
	struct file *file = NULL;

	READ(file, h->files + i);
	h->found = file == h->wanted;
	return h->found;
}

static __always_inline struct nc_rd_to_target *target_of(const struct nc_rd_to *rule, __u32 number)
{
	struct nc_rd_to_target_key key = { .rule = rule->id, .number = number };

	return bpf_map_lookup_elem(&rd_to_targets, &key);
}

static __always_inline void choose(struct rd_to_question *q, const struct nc_rd_to_target *target,
				   __u32 number)
{
	__builtin_memcpy(q->found.target, target->address, sizeof(q->found.target));
	q->found.target_port = target->port;
	q->number = number;
}

/* A number that spreads well (the finisher of MurmurHash3), of the process's cgroup and namespace. */
static __always_inline __u32 source_of(struct bpf_sock_addr *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 h = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);

	h ^= bpf_get_netns_cookie(ctx) << 32 | bpf_get_netns_cookie(ctx) >> 32;
	h = (h ^ h >> 33) * 0xff51afd7ed558ccdULL;
	h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53ULL;
	return h ^ h >> 33;
}

/* Of a rule whose targets are asked; one that was not asked yet is taken to be up. */
static __always_inline bool is_down(const struct nc_rd_to *rule, __u32 number)
{
	struct nc_rd_to_target_key key = { .rule = rule->id, .number = number };
	const struct nc_rd_to_health *health = bpf_map_lookup_elem(&rd_to_health, &key);

	return health && health->state == NC_RD_TO_DOWN;
}

/* bpf_loop callbacks over a rule's targets: older kernels follow each round of a plain loop anew. */
static long add_weight(__u32 i, struct rd_to_question *q)
{
	const struct nc_rd_to_target *target = target_of(&q->found, i);

	if (target && !(q->only_up && is_down(&q->found, i)))
		q->sum += target->weight;
	return 0;
}

static long choose_at(__u32 i, struct rd_to_question *q)
{
	const struct nc_rd_to_target *target = target_of(&q->found, i);

	if (!target || (q->only_up && is_down(&q->found, i)))
		return 0;
	if (q->at >= target->weight) {
		q->at -= target->weight;
		return 0;
	}
	choose(q, target, i);
	return 1;
}

static __always_inline __u32 several(const struct rd_to_question *q)
{
	return q->found.targets < NC_RD_TO_TARGETS ? q->found.targets : NC_RD_TO_TARGETS;
}

/*
 * Which of several targets it is: as many times as its weight says. False if all are down. A source whose target is
 * down goes to one of the others; all other sources stay where they are.
 */
static __noinline bool choose_target(struct bpf_sock_addr *ctx, struct rd_to_question *q)
{
	struct nc_rd_to_target *first;
	__u32 asked, source = 0;

	if (!q)
		return true;
	asked = q->found.how & NC_RD_TO_ASKED;
	if (q->found.targets <= 1 && !asked)
		return true;
	first = target_of(&q->found, 0);
	if (!first)
		return true; /* they are another tool's to write; the rule has the first */
	if (q->found.how & NC_RD_TO_BY_SOURCE) {
		source = source_of(ctx);
		q->only_up = 0;
		q->sum = 0;
		bpf_loop(several(q), add_weight, q, 0);
		if (!q->sum)
			return true;
		q->at = source % q->sum;
		bpf_loop(several(q), choose_at, q, 0);
		if (!asked || !is_down(&q->found, q->number))
			return true;
		source /= q->sum; /* what is left of it spreads over the others */
	}
	q->only_up = asked;
	q->sum = 0;
	bpf_loop(several(q), add_weight, q, 0);
	if (!q->sum)
		return !asked;
	if (!(q->found.how & NC_RD_TO_BY_SOURCE))
		source = __sync_fetch_and_add(&first->turn, 1);
	q->at = source % q->sum;
	bpf_loop(several(q), choose_at, q, 0);
	return true;
}

/* What becomes of an address that was asked about. */
enum rd_fate {
	RD_STAYS,
	RD_GOES, /* to the address in rd_to_question::found */
	RD_REFUSED,
};

/* All targets are down: what the rule wants then. Whoever refused it before us has told why. */
static __always_inline enum rd_fate all_are_down(const struct rd_to_question *q)
{
	__u32 id = q->found.id;
	bool open = q->found.how & NC_RD_TO_OPEN;
	struct nc_rd_to_failed *failed = bpf_map_lookup_elem(&rd_to_failed, &id);

	if (failed)
		__sync_fetch_and_add(open ? &failed->opened : &failed->refused, 1);
	if (open)
		return RD_STAYS;
	if (!bpf_get_retval())
		bpf_set_retval(-ECONNREFUSED);
	return RD_REFUSED;
}

static __always_inline void count_target(const struct rd_to_question *q, bool datagram)
{
	struct nc_rd_to_target *target = target_of(&q->found, q->number);

	if (target)
		__sync_fetch_and_add(datagram ? &target->datagrams : &target->connections, 1);
}

/* The connecting process has the socket open that the target's clients get to. */
static __noinline bool would_loop_by(struct bpf_sock_addr *ctx, const __be32 *target, __u32 port,
				     __u32 family, __u32 protocol)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct bpf_sock_tuple tuple = {};
	struct rd_holder h = {};
	struct bpf_sock *sk;
	struct socket *socket = NULL;
	struct fdtable *table;
	__u64 address;
	__u32 count, size;

	if (!target)
		return false;
	if (family == 4) {
		size = sizeof(tuple.ipv4);
		tuple.ipv4.saddr = tuple.ipv4.daddr = target[0];
		tuple.ipv4.dport = bpf_htons(port);
	} else {
		size = sizeof(tuple.ipv6);
		__builtin_memcpy(tuple.ipv6.saddr, target, 16);
		__builtin_memcpy(tuple.ipv6.daddr, target, 16);
		tuple.ipv6.dport = bpf_htons(port);
	}
	if (protocol == IPPROTO_TCP)
		sk = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_udp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	/* The verifier allows no arithmetic on a socket's pointer, but its bytes may be copied. */
	bpf_probe_read_kernel(&address, sizeof(address), &sk);
	READ(socket, &((struct sock *)address)->sk_socket);
	if (socket)
		READ(h.wanted, &socket->file);
	bpf_sk_release(sk);
	if (!h.wanted)
		return false;
	table = BPF_CORE_READ(task, files, fdt);
	h.files = BPF_CORE_READ(table, fd);
	count = BPF_CORE_READ(table, max_fds);
	bpf_loop(count < 65536 ? count : 65536, look_at_file, &h, 0);
	return h.found;
}

struct rd_loop_check {
	struct bpf_sock_addr *ctx;
	const struct rd_to_question *q;
	__u32 loops;
	__u32 reserved;
};

static long would_loop_at(__u32 i, struct rd_loop_check *check)
{
	const struct nc_rd_to_target *target = target_of(&check->q->found, i);

	check->loops = target && would_loop_by(check->ctx, target->address, target->port,
					       check->q->found.family, check->q->protocol);
	return check->loops;
}

/* By any of the targets: it might come back by way of another. */
static __noinline bool would_loop(struct bpf_sock_addr *ctx, const struct rd_to_question *q)
{
	struct rd_loop_check check = { .ctx = ctx, .q = q };

	if (!q)
		return false;
	if (q->found.targets <= 1)
		return would_loop_by(ctx, q->found.target, q->found.target_port, q->found.family,
				     q->protocol);
	bpf_loop(several(q), would_loop_at, &check, 0);
	return check.loops;
}

/* IPv6-mapped IPv4 is IPv4. */
static __always_inline void unmap(struct nc_rd_name *name)
{
	if (name->family == 6 && !name->ip[0] && !name->ip[1] && name->ip[2] == bpf_htonl(0xffff)) {
		name->family = 4;
		name->mapped = 1;
		name->ip[0] = name->ip[3];
		name->ip[2] = name->ip[3] = 0;
	}
}

static __always_inline void normalise(struct nc_rd_name *name)
{
	unmap(name);
	/* The unspecified address means this host. */
	if (!name->ip[0] && !name->ip[1] && !name->ip[2] && !name->ip[3]) {
		if (name->family == 4)
			name->ip[0] = bpf_htonl(0x7f000001);
		else
			name->ip[3] = bpf_htonl(1);
	}
}

static __always_inline bool same_ip(const __be32 *a, const __be32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

/* Whether they are one address and port, mapped or not. */
static __always_inline bool same_name(const struct nc_rd_name *a, const struct nc_rd_name *b)
{
	return a->port == b->port && a->family == b->family && same_ip(a->ip, b->ip);
}

/* The rule for the address in `q`, which is normalised, in q->found. */
static __always_inline bool ask_to_rules(struct bpf_sock_addr *ctx, struct rd_to_question *q)
{
	struct nc_rd_conf *c = conf();

	if (!c || c->flags & NC_RD_DRAINING)
		return false;
	q->protocol = ctx->type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
	q->bank = c->to_bank & 1;
	normalise(&q->name);
	bpf_loop(NC_RD_TO_RULES, ask_to, q, 0);
	return q->found.used;
}

static __always_inline void note_target(struct nc_rd_to_way *way, const struct rd_to_question *q)
{
	way->original = q->name;
	way->target.family = q->name.family;
	way->target.mapped = q->name.mapped;
	way->target.port = bpf_htons(q->found.target_port);
	__builtin_memcpy(way->target.ip, q->found.target, sizeof(way->target.ip));
}

/* Whether the address in `q` is to be another: that in q->found. */
static __always_inline enum rd_fate rewrites(struct bpf_sock_addr *ctx, struct rd_to_question *q)
{
	struct nc_rd_to_mine *mine;
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return RD_STAYS;
	if (ctx->type == SOCK_DGRAM) /* from here on it hears from its peer only */
		bpf_sk_storage_delete(&rd_to_sent, sk);
	if (ask_to_rules(ctx, q) && would_loop(ctx, q)) {
		COUNT(loops);
		q->found.used = 0;
	}
	if (!q->found.used) {
		bpf_sk_storage_delete(&rd_to_mine, sk); /* of an earlier connect() */
		return RD_STAYS;
	}
	mine = bpf_sk_storage_get(&rd_to_mine, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!mine) {
		COUNT(helper_failed);
		return RD_STAYS;
	}
	if (mine->leave_alone)
		return RD_STAYS;
	if (!choose_target(ctx, q)) {
		bpf_sk_storage_delete(&rd_to_mine, sk);
		return all_are_down(q);
	}
	note_target(&mine->way, q);
	mine->rule = q->found.id;
	mine->number = q->number;
	mine->pid = bpf_get_current_pid_tgid() >> 32;
	BPF_CORE_READ_INTO(&mine->process, (struct task_struct *)bpf_get_current_task(), comm);
	COUNT(rewritten);
	count_target(q, false);
	return RD_GOES;
}

struct rd_sent_search {
	const struct rd_to_sent *sent;
	const struct nc_rd_name *name;
	__u32 entry;
	__u32 reserved;
};

static long is_target(__u32 i, struct rd_sent_search *s)
{
	if (i >= NC_RD_TO_SENT)
		return 1;
	if (!same_name(&s->sent->to[i].target, s->name))
		return 0;
	s->entry = i;
	return 1;
}

static long is_original(__u32 i, struct rd_sent_search *s)
{
	if (i >= NC_RD_TO_SENT)
		return 1;
	if (!same_name(&s->sent->to[i].original, s->name))
		return 0;
	s->entry = i;
	return 1;
}

/* Which entry has the target, or NC_RD_TO_SENT. */
static __noinline __u32 entry_of(const struct rd_to_sent *sent, const struct nc_rd_name *target)
{
	struct rd_sent_search s = { .sent = sent, .name = target, .entry = NC_RD_TO_SENT };

	if (sent && target)
		bpf_loop(NC_RD_TO_SENT, is_target, &s, 0);
	return s.entry;
}

struct rd_kept {
	struct rd_to_question *q;
	const struct nc_rd_name *target;
	__u32 found;
	__u32 reserved;
};

static long is_kept(__u32 i, struct rd_kept *kept)
{
	const struct nc_rd_to_target *target = target_of(&kept->q->found, i);

	if (!target || bpf_htons(target->port) != kept->target->port ||
	    !same_ip(target->address, kept->target->ip))
		return 0;
	if (kept->q->found.how & NC_RD_TO_ASKED && is_down(&kept->q->found, i))
		return 1;
	choose(kept->q, target, i);
	kept->found = 1;
	return 1;
}

/*
 * Whether the socket has sent to this address before, by a target that the rule still has: it stays with
 * that, as if it were connected.
 */
static __noinline bool keeps_target(struct rd_to_question *q, const struct rd_to_sent *sent)
{
	struct rd_sent_search s = { .sent = sent, .entry = NC_RD_TO_SENT };
	struct rd_kept kept = { .q = q };
	__u32 n;

	if (!q || !sent || q->found.targets <= 1)
		return false;
	s.name = &q->name;
	bpf_loop(NC_RD_TO_SENT, is_original, &s, 0);
	if (s.entry >= NC_RD_TO_SENT)
		return false;
	/* Masked, where clang does not see that it need not be: 6.1 forgets the bound. */
	n = s.entry;
	asm volatile("" : "+r"(n));
	kept.target = &sent->to[n % NC_RD_TO_SENT].target;
	bpf_loop(several(q), is_kept, &kept, 0);
	return kept.found;
}

/*
 * The same for a datagram of a socket that is not connected. What comes from the target is told to be
 * from the address that was last sent to. Whether it would loop is asked when a socket first sends there.
 */
static __always_inline enum rd_fate rewrites_datagram(struct bpf_sock_addr *ctx,
						      struct rd_to_question *q)
{
	struct bpf_sock *sk = ctx->sk;
	struct nc_rd_to_way wanted = {};
	struct rd_to_sent *sent;
	enum rd_fate fate = RD_STAYS;
	bool all_down = false;
	__u32 i = NC_RD_TO_SENT;

	/* With control data, a connected socket's come without an address: connect() had the say. */
	if (!sk || !q->name.port || ctx->protocol != IPPROTO_UDP)
		return RD_STAYS;
	sent = bpf_sk_storage_get(&rd_to_sent, sk, NULL, 0);
	if (ask_to_rules(ctx, q)) {
		fate = RD_GOES;
		all_down = !keeps_target(q, sent) && !choose_target(ctx, q);
		note_target(&wanted, q);
		i = entry_of(sent, &wanted.target);
		if ((all_down || !sent || i >= NC_RD_TO_SENT) && would_loop(ctx, q)) {
			COUNT(loops);
			return RD_STAYS;
		}
		if (all_down)
			fate = all_are_down(q);
	}
	if (fate == RD_STAYS) {
		/* What it answers is from itself, whatever went there before. */
		i = entry_of(sent, &q->name);
		if (sent && i < NC_RD_TO_SENT)
			__builtin_memset(&sent->to[i], 0, sizeof(sent->to[i]));
	}
	if (fate != RD_GOES)
		return fate;
	if (!sent || i >= NC_RD_TO_SENT) {
		if (!sent)
			sent = bpf_sk_storage_get(&rd_to_sent, sk, NULL,
						  BPF_SK_STORAGE_GET_F_CREATE);
		if (!sent) {
			COUNT(helper_failed);
			return RD_STAYS;
		}
		i = sent->next++ % NC_RD_TO_SENT;
		if (sent->to[i].target.port)
			COUNT_TO(forgotten);
	}
	sent->to[i] = wanted;
	COUNT_TO(datagrams);
	count_target(q, true);
	return RD_GOES;
}

static __always_inline void ask_about4(const struct bpf_sock_addr *ctx, struct nc_rd_name *name)
{
	name->family = 4;
	name->port = ctx->user_port;
	name->ip[0] = ctx->user_ip4;
}

static __always_inline void ask_about6(const struct bpf_sock_addr *ctx, struct nc_rd_name *name)
{
	name->family = 6;
	name->port = ctx->user_port;
	name->ip[0] = ctx->user_ip6[0];
	name->ip[1] = ctx->user_ip6[1];
	name->ip[2] = ctx->user_ip6[2];
	name->ip[3] = ctx->user_ip6[3];
}

static __always_inline void go_to4(struct bpf_sock_addr *ctx, const struct rd_to_question *q)
{
	ctx->user_ip4 = q->found.target[0];
	ctx->user_port = bpf_htons(q->found.target_port);
}

static __always_inline void go_to6(struct bpf_sock_addr *ctx, const struct rd_to_question *q)
{
	ctx->user_port = bpf_htons(q->found.target_port);
	if (q->name.mapped) {
		ctx->user_ip6[3] = q->found.target[0];
		return;
	}
	ctx->user_ip6[0] = q->found.target[0];
	ctx->user_ip6[1] = q->found.target[1];
	ctx->user_ip6[2] = q->found.target[2];
	ctx->user_ip6[3] = q->found.target[3];
}

/* Sockets of other protocols are left alone. */
static __always_inline bool connects(const struct bpf_sock_addr *ctx)
{
	return ctx->type == SOCK_STREAM ||
	       (ctx->type == SOCK_DGRAM && ctx->protocol == IPPROTO_UDP);
}

SEC("cgroup/connect4")
int rd_connect4(struct bpf_sock_addr *ctx)
{
	struct rd_to_question q = {};
	enum rd_fate fate = RD_STAYS;

	ask_about4(ctx, &q.name);
	if (connects(ctx))
		fate = rewrites(ctx, &q);
	if (fate == RD_GOES)
		go_to4(ctx, &q);
	return fate != RD_REFUSED;
}

SEC("cgroup/connect6")
int rd_connect6(struct bpf_sock_addr *ctx)
{
	struct rd_to_question q = {};
	enum rd_fate fate = RD_STAYS;

	ask_about6(ctx, &q.name);
	if (connects(ctx))
		fate = rewrites(ctx, &q);
	if (fate == RD_GOES)
		go_to6(ctx, &q);
	return fate != RD_REFUSED;
}

/* These two are attached while a rule of `to` is about UDP. */
SEC("cgroup/sendmsg4")
int rd_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct rd_to_question q = {};
	enum rd_fate fate;

	ask_about4(ctx, &q.name);
	fate = rewrites_datagram(ctx, &q);
	if (fate == RD_GOES)
		go_to4(ctx, &q);
	return fate != RD_REFUSED;
}

/* IPv6-mapped addresses come to the former. */
SEC("cgroup/sendmsg6")
int rd_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct rd_to_question q = {};
	enum rd_fate fate;

	ask_about6(ctx, &q.name);
	fate = rewrites_datagram(ctx, &q);
	if (fate == RD_GOES)
		go_to6(ctx, &q);
	return fate != RD_REFUSED;
}

/* The address that a client is told for its peer, or for who sent, is the one that it asked for. */
static __always_inline const struct nc_rd_name *told(struct bpf_sock_addr *ctx,
						     const struct nc_rd_name *real)
{
	struct bpf_sock *sk = ctx->sk;
	struct nc_rd_to_mine *mine;

	if (!sk)
		return NULL;
	mine = bpf_sk_storage_get(&rd_to_mine, sk, NULL, 0);
	return mine && same_name(&mine->way.target, real) ? &mine->way.original : NULL;
}

static __always_inline const struct nc_rd_name *sender(struct bpf_sock_addr *ctx,
						       const struct nc_rd_name *real)
{
	struct bpf_sock *sk = ctx->sk;
	struct rd_to_sent *sent;
	__u32 i;

	if (!sk)
		return NULL;
	sent = bpf_sk_storage_get(&rd_to_sent, sk, NULL, 0);
	i = entry_of(sent, real);
	return sent && i < NC_RD_TO_SENT ? &sent->to[i].original : told(ctx, real);
}

static __always_inline void tell4(struct bpf_sock_addr *ctx, const struct nc_rd_name *name)
{
	if (name && name->family == 4) {
		ctx->user_ip4 = name->ip[0];
		ctx->user_port = name->port;
	}
}

static __always_inline void tell6(struct bpf_sock_addr *ctx, const struct nc_rd_name *name)
{
	if (!name)
		return;
	ctx->user_port = name->port;
	if (name->family == 4) {
		ctx->user_ip6[3] = name->ip[0];
		return;
	}
	ctx->user_ip6[0] = name->ip[0];
	ctx->user_ip6[1] = name->ip[1];
	ctx->user_ip6[2] = name->ip[2];
	ctx->user_ip6[3] = name->ip[3];
}

SEC("cgroup/getpeername4")
int rd_peername4(struct bpf_sock_addr *ctx)
{
	struct nc_rd_name real = {};

	ask_about4(ctx, &real);
	tell4(ctx, told(ctx, &real));
	return 1;
}

SEC("cgroup/getpeername6")
int rd_peername6(struct bpf_sock_addr *ctx)
{
	struct nc_rd_name real = {};

	ask_about6(ctx, &real);
	unmap(&real);
	tell6(ctx, told(ctx, &real));
	return 1;
}

SEC("cgroup/recvmsg4")
int rd_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct nc_rd_name real = {};

	ask_about4(ctx, &real);
	tell4(ctx, sender(ctx, &real));
	return 1;
}

SEC("cgroup/recvmsg6")
int rd_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct nc_rd_name real = {};

	ask_about6(ctx, &real);
	unmap(&real);
	tell6(ctx, sender(ctx, &real));
	return 1;
}

/*
 * The client's port is known and nothing sent yet: remembered for whoever accepts. Or forgotten, if an
 * earlier connection from that port was rewritten and this one is not.
 */
static __noinline void on_connect(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct rd_to_key key = {};
	struct nc_rd_to_mine *mine;
	struct nc_rd_end end = {};

	if (!sk)
		return;
	mine = bpf_sk_storage_get(&rd_to_mine, sk, NULL, 0);
	fill_end(ctx, &end);
	key.netns = bpf_get_netns_cookie(ctx);
	key.family = end.family;
	key.client_port = end.local_port;
	key.target_port = end.remote_port;
	__builtin_memcpy(key.client, end.local, sizeof(key.client));
	__builtin_memcpy(key.target, end.remote, sizeof(key.target));
	if (!mine || mine->leave_alone)
		bpf_map_delete_elem(&rd_to_known, &key);
	else if (bpf_map_update_elem(&rd_to_known, &key, &mine->way.original, BPF_ANY))
		COUNT(helper_failed);
}

struct rd_sockaddr4 {
	__u16 family;
	__be16 port;
	__be32 ip;
	__u64 zero;
};

struct rd_sockaddr6 {
	__u16 family;
	__be16 port;
	__u32 flow;
	__be32 ip[4];
	__u32 scope;
};

/*
 * A value that is longer than a page is refused behind a program that does not say that it leaves it
 * alone. A shorter one may have been changed by another program, which that would undo.
 */
static __always_inline void leave_as_it_is(struct bpf_sockopt *ctx)
{
	if (ctx->optlen > 4096)
		ctx->optlen = 0;
}

SEC("cgroup/getsockopt")
int rd_getsockopt(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct rd_to_key key = {};
	struct nc_rd_name *name;
	void *value, *end;

	if (ctx->optname != SO_ORIGINAL_DST || (ctx->level != SOL_IP && ctx->level != SOL_IPV6) ||
	    !sk || sk->protocol != IPPROTO_TCP) {
		leave_as_it_is(ctx);
		return 1;
	}
	key.netns = bpf_get_netns_cookie(ctx);
	key.client_port = bpf_ntohs(sk->dst_port);
	key.target_port = sk->src_port;
	if (sk->family == AF_INET) {
		key.family = 4;
		key.client[0] = sk->dst_ip4;
		key.target[0] = sk->src_ip4;
	} else {
		key.family = 6;
		key.client[0] = sk->dst_ip6[0];
		key.client[1] = sk->dst_ip6[1];
		key.client[2] = sk->dst_ip6[2];
		key.client[3] = sk->dst_ip6[3];
		key.target[0] = sk->src_ip6[0];
		key.target[1] = sk->src_ip6[1];
		key.target[2] = sk->src_ip6[2];
		key.target[3] = sk->src_ip6[3];
		if (!key.client[0] && !key.client[1] && key.client[2] == bpf_htonl(0xffff)) {
			key.family = 4;
			key.client[0] = key.client[3];
			key.target[0] = key.target[3];
			key.client[2] = key.client[3] = key.target[2] = key.target[3] = 0;
		}
	}
	name = bpf_map_lookup_elem(&rd_to_known, &key);
	value = ctx->optval;
	end = ctx->optval_end;
	if (name && name->family == 4 && ctx->level == SOL_IP &&
	    value + sizeof(struct rd_sockaddr4) <= end) {
		struct rd_sockaddr4 *out = value;

		out->family = AF_INET;
		out->port = name->port;
		out->ip = name->ip[0];
		out->zero = 0;
		ctx->optlen = sizeof(*out);
		ctx->retval = 0;
		return 1;
	}
	if (name && name->family == 6 && ctx->level == SOL_IPV6 &&
	    value + sizeof(struct rd_sockaddr6) <= end) {
		struct rd_sockaddr6 *out = value;

		out->family = AF_INET6;
		out->port = name->port;
		out->flow = 0;
		out->ip[0] = name->ip[0];
		out->ip[1] = name->ip[1];
		out->ip[2] = name->ip[2];
		out->ip[3] = name->ip[3];
		out->scope = 0;
		ctx->optlen = sizeof(*out);
		ctx->retval = 0;
		return 1;
	}
	leave_as_it_is(ctx);
	return 1;
}

#endif
