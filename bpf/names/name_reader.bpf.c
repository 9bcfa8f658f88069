// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sets of names: reads the questions and answers of DNS over UDP that pass a host's sockets, and puts the addresses
 * of wanted names into the set, before the process that asked has the answer.
 *
 * Believed is what answers a question that was seen to be asked, to the port and with the id of it, and comes from
 * the resolver: on the way in by another interface than loopback; or, if the resolver is on this host, on the way
 * out of the socket that has its address and port. So nothing that somebody sends to himself is.
 */
#include <netctl/lib/dns.h>
#include <netctl/lib/templates.h>

char LICENSE[] SEC("license") = "GPL";

NC_BTF(nc_name_key);
NC_BTF(nc_name);
NC_BTF(nc_resolver);
NC_BTF(nc_name_address);
NC_BTF(nc_learnt);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct nc_name_key);
	__type(value, struct nc_name);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NC_NAME_RESOLVERS);
	__type(key, struct nc_resolver);
	__type(value, __u32);
} resolvers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_name_settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct nc_name_address);
	__type(value, struct nc_learnt);
} learnt SEC(".maps");

/* The addresses again, in the order in which they came: what has run out gives its place to the next. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_name_address);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NC_NAME_ASKED);
	__type(key, struct nc_asked_key);
	__type(value, struct nc_asked);
} asked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_name_stats);
} name_stats SEC(".maps");

/* Where messages are read. These programs can be interrupted by each other, and preempted. */
#define NC_DNS_PLACES 4
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NC_DNS_PLACES);
	__type(key, __u32);
	__type(value, struct nc_dns);
} messages SEC(".maps");

struct nc_map_host4 v4 SEC(".maps");
struct nc_map_host6 v6 SEC(".maps");

static __u32 next_place;

#define NC_DNS_PORT 53
#define NC_DNS_CLASS_IN 1
#define NC_DNS_TYPE_A 1
#define NC_DNS_TYPE_CNAME 5
#define NC_DNS_TYPE_AAAA 28
#define NC_DNS_ANSWER 0x8000
#define NC_DNS_OPCODE 0x7800
#define NC_DNS_TRUNCATED 0x0200
#define NC_DNS_RCODE 0x000f
#define NC_SOCK_DGRAM 2
#define NC_LOOPBACK_IFINDEX 1

#define NC_COUNT(where) __sync_fetch_and_add(&(where), 1)

/* ---- the set ---- */

union nc_set_word64 {
	struct nc_set_value value;
	__u64 word;
};

/* What an element is while its place is given to another: run out long ago. */
#define NC_EXPIRES_GOING 1

static __always_inline struct nc_set_value *nc_find_address(const struct nc_name_address *a)
{
	return a->family == 4 ? bpf_map_lookup_elem(&v4, a->address) :
				bpf_map_lookup_elem(&v6, a->address);
}

static __always_inline void nc_forget_address(const struct nc_name_address *a)
{
	if (a->family == 4)
		bpf_map_delete_elem(&v4, a->address);
	else
		bpf_map_delete_elem(&v6, a->address);
	bpf_map_delete_elem(&learnt, a);
}

/* Whether the address has run out; it is taken out then. In two steps: whoever learns it anew in between sees that
 * it is going (nc_extend), or has extended it before, and it stays. */
static __always_inline bool nc_retire(const struct nc_name_address *a, __u32 now)
{
	struct nc_set_value *value = nc_find_address(a);
	union nc_set_word64 was, going;

	if (!value) {
		bpf_map_delete_elem(&learnt, a);
		return true;
	}
	was.word = *(volatile __u64 *)value;
	if (!was.value.expires || was.value.expires > now || was.value.flags)
		return false;
	going.value.expires = NC_EXPIRES_GOING;
	going.value.flags = 0;
	if (__sync_val_compare_and_swap((__u64 *)value, was.word, going.word) != was.word)
		return false;
	nc_forget_address(a);
	return true;
}

/* Finds a place for an address; false if all that are looked at hold one that still counts. */
static __always_inline bool nc_take_place(struct nc_dns_walker *w, const struct nc_name_address *a)
{
	__u32 i, place, room = w->settings->places;

	if (!room)
		return false;
	for (i = 0; i < 4; i++) {
		struct nc_name_address old, *there;

		place = __sync_fetch_and_add(&next_place, 1) % room;
		there = bpf_map_lookup_elem(&places, &place);
		if (!there)
			return false;
		old = *there;
		if (old.family && !nc_retire(&old, w->now))
			continue;
		*there = *a;
		return true;
	}
	return false;
}

enum nc_extended { NC_EXTENDED, NC_NOT_THERE };

/* Lets an element that is there count until `expires`, if it does not count longer. What others have written stays as
 * they want it: an exception, and what is there for good. */
static __always_inline enum nc_extended nc_extend(const struct nc_name_address *a, __u32 expires)
{
	__u32 i;

	for (i = 0; i < 16; i++) {
		struct nc_set_value *value = nc_find_address(a);
		union nc_set_word64 was, next;

		if (!value)
			return NC_NOT_THERE;
		was.word = *(volatile __u64 *)value;
		if (!was.value.expires || was.value.flags || was.value.expires >= expires)
			return NC_EXTENDED;
		if (was.value.expires == NC_EXPIRES_GOING)
			continue; /* gone in a moment */
		next.value.expires = expires;
		next.value.flags = 0;
		if (__sync_val_compare_and_swap((__u64 *)value, was.word, next.word) == was.word)
			return NC_EXTENDED;
	}
	nc_forget_address(a);
	return NC_NOT_THERE;
}

static __always_inline long nc_add_address(const struct nc_name_address *a, __u32 expires)
{
	struct nc_set_value value = { .expires = expires };

	return a->family == 4 ? bpf_map_update_elem(&v4, a->address, &value, BPF_NOEXIST) :
				bpf_map_update_elem(&v6, a->address, &value, BPF_NOEXIST);
}

#define NC_EEXIST 17

/* Tells where an address comes from. */
static __always_inline void nc_remember_name(struct nc_dns_walker *w,
					     const struct nc_name_address *a)
{
	struct nc_learnt *known = bpf_map_lookup_elem(&learnt, a);

	if (known) {
		known->told = w->now;
		return;
	}
	w->dns->fresh.since = w->dns->fresh.told = w->now;
	bpf_map_update_elem(&learnt, a, &w->dns->fresh, BPF_ANY);
}

static __noinline int nc_learn(struct nc_dns_walker *w, const struct nc_name_address *a, __u32 ttl)
{
	struct nc_name_stats *stats = w->stats;
	__u32 expires;
	long failure;

	if (ttl & 1u << 31) /* RFC 2181, 8 */
		ttl = 0;
	if (ttl > w->settings->longest)
		ttl = w->settings->longest;
	expires = w->now + ttl + w->settings->grace;
	if (nc_extend(a, expires) == NC_EXTENDED) {
		NC_COUNT(stats->refreshed);
		nc_remember_name(w, a);
		return 0;
	}
	if (!nc_take_place(w, a)) {
		NC_COUNT(stats->full);
		return 0;
	}
	failure = nc_add_address(a, expires);
	if (failure == -NC_EEXIST) /* another CPU was first */
		nc_extend(a, expires);
	if (failure && failure != -NC_EEXIST) {
		NC_COUNT(stats->full);
		return 0;
	}
	NC_COUNT(stats->learnt);
	nc_remember_name(w, a);
	return 0;
}

/* ---- questions ---- */

/* One byte of the name, from its end on; where a label begins, whether the name from there on is wanted. */
static long nc_suffix_step(__u32 i, struct nc_dns_walker *w)
{
	struct nc_dns *d = w->dns;
	struct nc_name_key key = {};
	struct nc_name *found;
	__u32 back, j;

	if (!d->back)
		return 1;
	back = (d->back - 1) & 255;
	d->back = back;
	d->suffix = nc_name_hash_on(d->suffix, d->name[back]);
	if (!d->labels || d->label[(d->labels - 1) & (NC_DNS_LABELS - 1)] != back)
		return 0;
	d->labels--;
	key.hash = d->suffix;
	key.below = back != 0;
	found = bpf_map_lookup_elem(&names, &key);
	if (!found || found->length + back != d->size)
		return 0;
	for (j = 0; j < NC_NAME_BYTES; j++) {
		if (j >= found->length)
			break;
		if (found->wire[j] != d->name[(back + j) & 255])
			return 0;
	}
	d->wanted = true;
	return 1;
}

static long nc_question_step(__u32 i, struct nc_dns_walker *w)
{
	struct nc_dns *d = w->dns;
	__u32 at = d->first_record;

	if (!d->questions)
		return 1;
	d->questions--;
	if (!nc_dns_read_name(w, at) || !nc_dns_has(d, d->behind, 4)) {
		d->walk = NC_DNS_BROKEN;
		return 1;
	}
	d->question = (d->question ^ d->hash) * 1099511628211ull;
	d->question = (d->question ^ nc_dns_u32(d, d->behind)) * 1099511628211ull;
	d->first_record = d->behind + 4;
	d->back = d->size;
	d->suffix = NC_NAME_HASH_START;
	d->wanted = false;
	bpf_loop(NC_NAME_BYTES, nc_suffix_step, w, 0);
	if (d->wanted)
		d->asked[d->asks++ & (NC_DNS_QUESTIONS - 1)] = at;
	return 0;
}

/* Reads the questions of a message; whether one is about a wanted name. Broken ones are counted. */
static __always_inline bool nc_read_questions(struct nc_dns_walker *w)
{
	struct nc_dns *d = w->dns;

	d->questions = nc_dns_u16(d, 4);
	d->question = NC_NAME_HASH_START;
	d->first_record = NC_DNS_HEADER;
	d->asks = 0;
	d->walk = NC_DNS_ENDED;
	bpf_loop(NC_DNS_QUESTIONS, nc_question_step, w, 0);
	if (d->walk == NC_DNS_BROKEN || d->questions) {
		NC_COUNT(w->stats->unreadable);
		return false;
	}
	return d->asks != 0;
}

/* ---- answers ---- */

static __always_inline void nc_learn_record(struct nc_dns_walker *w, __u32 at, __u32 family,
					    __u32 ttl)
{
	struct nc_name_address a = { .family = family };
	struct nc_dns *d = w->dns;

	at &= NC_DNS_BYTES - 1;
	__builtin_memcpy(a.address, d->data + at, 4);
	if (family == 6)
		__builtin_memcpy(a.address + 1, d->data + at + 4, 12);
	nc_learn(w, &a, ttl);
}

/* Whether the name at `d->at` is that whose addresses are wanted; leads behind it. */
static __always_inline bool nc_is_owner(struct nc_dns_walker *w)
{
	struct nc_dns *d = w->dns;
	__u32 at = d->at;

	if (nc_dns_has(d, at, 2) && nc_dns_u16(d, at) == (0xc000 | d->owner_at)) {
		d->at = at + 2;
		d->walk = NC_DNS_ENDED;
		return true;
	}
	if (!nc_dns_read_name(w, at))
		return false;
	d->at = d->behind;
	return d->hash == d->owner;
}

static long nc_record_step(__u32 i, struct nc_dns_walker *w)
{
	struct nc_dns *d = w->dns;
	__u32 at, type, length, ttl;
	bool wanted;

	if (!d->records)
		return 1;
	wanted = nc_is_owner(w);
	at = d->at;
	if (d->walk != NC_DNS_ENDED || !nc_dns_has(d, at, 10)) {
		d->walk = NC_DNS_BROKEN;
		return 1;
	}
	type = nc_dns_u16(d, at);
	if (nc_dns_u16(d, at + 2) != NC_DNS_CLASS_IN)
		wanted = false;
	ttl = nc_dns_u32(d, at + 4);
	length = nc_dns_u16(d, at + 8);
	at += 10;
	if (!nc_dns_has(d, at, length)) {
		d->walk = NC_DNS_BROKEN;
		return 1;
	}
	d->records--;
	if (wanted && type == NC_DNS_TYPE_A && length == 4)
		nc_learn_record(w, at, 4, ttl);
	if (wanted && type == NC_DNS_TYPE_AAAA && length == 16)
		nc_learn_record(w, at, 6, ttl);
	if (wanted && type == NC_DNS_TYPE_CNAME) {
		if (!nc_dns_read_name(w, at) || d->behind != at + length) {
			d->walk = NC_DNS_BROKEN;
			return 1;
		}
		d->owner = d->hash;
		d->owner_at = at;
	}
	d->at = at + length;
	return 0;
}

/* Learns the addresses of the name that question `i` is about. */
static long nc_answer_step(__u32 i, struct nc_dns_walker *w)
{
	struct nc_dns *d = w->dns;
	__u32 at;

	if (!d->asks)
		return 1;
	d->asks--;
	at = d->asked[d->asks & (NC_DNS_QUESTIONS - 1)];
	if (!nc_dns_read_name(w, at))
		return 1;
	d->fresh.name.length = d->size;
	__builtin_memcpy(d->fresh.name.wire, d->name, sizeof(d->fresh.name.wire));
	d->owner = d->hash;
	d->owner_at = at;
	d->at = d->first_record;
	d->records = nc_dns_u16(d, 6);
	bpf_loop(NC_DNS_RECORDS, nc_record_step, w, 0);
	if (d->walk == NC_DNS_BROKEN && !d->cut)
		NC_COUNT(w->stats->unreadable);
	else if (d->records)
		NC_COUNT(w->stats->cut);
	return 0;
}

/* ---- packets ---- */

struct nc_ends {
	struct nc_resolver src, dst;
	__be16 sport, dport;
	__u32 payload; /* where it begins */
};

/* Reads the addresses and ports of a UDP packet from or to the port of DNS; false if it is none. */
static __always_inline bool nc_read_ends(struct __sk_buff *skb, struct nc_ends *e)
{
	struct udphdr udp;
	__u32 offset;

	__builtin_memset(e, 0, sizeof(*e));
	if (skb->protocol == bpf_htons(0x0800)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.protocol != IPPROTO_UDP)
			return false;
		offset = ip.ihl * 4;
		e->src.address[0] = ip.saddr;
		e->dst.address[0] = ip.daddr;
		e->src.family = e->dst.family = 4;
	} else if (skb->protocol == bpf_htons(0x86dd)) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_UDP)
			return false;
		offset = sizeof(ip);
		__builtin_memcpy(e->src.address, &ip.saddr, 16);
		__builtin_memcpy(e->dst.address, &ip.daddr, 16);
		e->src.family = e->dst.family = 6;
	} else {
		return false;
	}
	if (bpf_skb_load_bytes(skb, offset, &udp, sizeof(udp)))
		return false;
	e->sport = udp.source;
	e->dport = udp.dest;
	e->payload = offset + sizeof(udp);
	return udp.source == bpf_htons(NC_DNS_PORT) || udp.dest == bpf_htons(NC_DNS_PORT);
}

struct net___nc {
	struct {
		unsigned int inum;
	} ns;
} __attribute__((preserve_access_index));

struct sock_common___nc {
	struct {
		struct net___nc *net;
	} skc_net;
} __attribute__((preserve_access_index));

/* The network namespace of a socket. The verifier lets no program of this kind look into the kernel's struct, before
 * Linux 6.15 no helper tells it, and a copy of its beginning does. */
static __always_inline __u32 nc_netns_of(struct bpf_sock *sk)
{
	__u32 offset = bpf_core_field_offset(struct sock_common___nc, skc_net);
	struct net___nc *net = NULL;
	__u64 start[12];

	if (bpf_probe_read_kernel(start, sizeof(start), sk) || offset / 8 >= 12)
		return 0;
	net = (struct net___nc *)start[offset / 8];
	return BPF_CORE_READ(net, ns.inum);
}

/* A place to read a message in, which is given back by `busy` 0. */
static __always_inline struct nc_dns *nc_take_message(void)
{
	__u32 i;

	for (i = 0; i < NC_DNS_PLACES; i++) {
		__u32 place = i;
		struct nc_dns *d = bpf_map_lookup_elem(&messages, &place);

		if (d && !__sync_val_compare_and_swap(&d->busy, 0, 1))
			return d;
	}
	return NULL;
}

static __always_inline bool nc_load_message(struct __sk_buff *skb, struct nc_dns *d, __u32 offset)
{
	__u32 length = skb->len;

	if (length < offset + NC_DNS_HEADER)
		return false;
	length -= offset;
	d->cut = length > NC_DNS_BYTES;
	if (length > NC_DNS_BYTES)
		length = NC_DNS_BYTES;
	d->length = length;
	nc_opaque(length);
	if (length < NC_DNS_HEADER || length > NC_DNS_BYTES)
		return false;
	return !bpf_skb_load_bytes(skb, offset, d->data, length);
}

static __always_inline void nc_asked_key_of(struct nc_asked_key *key,
					    const struct nc_resolver *resolver,
					    const struct nc_resolver *local, __be16 port,
					    const struct nc_dns *d)
{
	__builtin_memset(key, 0, sizeof(*key));
	__builtin_memcpy(key->resolver, resolver->address, 16);
	__builtin_memcpy(key->local, local->address, 16);
	key->family = local->family;
	key->port = port;
	key->id = bpf_htons(nc_dns_u16(d, 0));
}

static __always_inline void nc_read_question(struct nc_dns_walker *w, const struct nc_ends *e)
{
	struct nc_asked value = {};
	struct nc_asked_key key;

	if (!nc_read_questions(w))
		return;
	NC_COUNT(w->stats->questions);
	nc_asked_key_of(&key, &e->dst, &e->src, e->sport, w->dns);
	value.question = w->dns->question;
	value.second = w->now;
	bpf_map_update_elem(&asked, &key, &value, BPF_ANY);
}

/* Whether an answer answers a question that waits for one; it waits no longer then. */
static __always_inline bool nc_was_asked(struct nc_dns_walker *w, const struct nc_ends *e)
{
	struct nc_asked_key key;
	struct nc_asked *found;

	nc_asked_key_of(&key, &e->src, &e->dst, e->dport, w->dns);
	found = bpf_map_lookup_elem(&asked, &key);
	if (!found || found->question != w->dns->question ||
	    w->now - found->second > NC_NAME_PATIENCE)
		return false;
	return !bpf_map_delete_elem(&asked, &key);
}

static __always_inline void nc_read_answer(struct nc_dns_walker *w, const struct nc_ends *e)
{
	__u32 flags = nc_dns_u16(w->dns, 2);

	if (!nc_read_questions(w))
		return;
	if (!nc_was_asked(w, e)) {
		NC_COUNT(w->stats->unasked);
		return;
	}
	NC_COUNT(w->stats->answers);
	if (flags & NC_DNS_TRUNCATED)
		NC_COUNT(w->stats->truncated);
	if (flags & NC_DNS_RCODE)
		return;
	bpf_loop(NC_DNS_QUESTIONS, nc_answer_step, w, 0);
}

enum nc_side { NC_SIDE_IN, NC_SIDE_OUT };

static __always_inline void nc_read_message(struct nc_dns_walker *w, struct __sk_buff *skb,
					    const struct nc_ends *e, bool question, bool answer)
{
	__u32 flags;

	if (!nc_load_message(skb, w->dns, e->payload)) {
		NC_COUNT(w->stats->unreadable);
		return;
	}
	flags = nc_dns_u16(w->dns, 2);
	if (flags & NC_DNS_OPCODE)
		return;
	if (flags & NC_DNS_ANSWER ? answer : question) {
		if (flags & NC_DNS_ANSWER)
			nc_read_answer(w, e);
		else
			nc_read_question(w, e);
	}
}

/* Whether the socket is one of UDP that has the address and port which the packet says that it comes from. Raw ones
 * are not, nor one of another address that names this one as its source (IP_PKTINFO). */
static __always_inline bool nc_is_resolver_socket(struct bpf_sock *sk, const struct nc_ends *e)
{
	__u32 family;

	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->type != NC_SOCK_DGRAM || sk->protocol != IPPROTO_UDP ||
	    sk->src_port != NC_DNS_PORT)
		return false;
	family = sk->family;
	if (family == 2)
		return !sk->src_ip4 || sk->src_ip4 == e->src.address[0];
	if (e->src.family == 4) /* bound to all, or to ::ffff:ADDRESS */
		return !(sk->src_ip6[0] | sk->src_ip6[1] | sk->src_ip6[2] | sk->src_ip6[3]) ||
		       sk->src_ip6[3] == e->src.address[0];
	return !(sk->src_ip6[0] | sk->src_ip6[1] | sk->src_ip6[2] | sk->src_ip6[3]) ||
	       (sk->src_ip6[0] == e->src.address[0] && sk->src_ip6[1] == e->src.address[1] &&
		sk->src_ip6[2] == e->src.address[2] && sk->src_ip6[3] == e->src.address[3]);
}

static __always_inline int nc_watch(struct __sk_buff *skb, enum nc_side side)
{
	struct bpf_sock *sk = skb->sk;
	struct nc_dns_walker w = {};
	bool question = false, answer = false;
	__u32 zero = 0, *resolver;
	struct nc_ends ends;

	if (!sk || !nc_read_ends(skb, &ends))
		return 0;
	w.settings = bpf_map_lookup_elem(&settings, &zero);
	w.stats = bpf_map_lookup_elem(&name_stats, &zero);
	if (!w.settings || !w.stats || nc_netns_of(sk) != w.settings->netns)
		return 0;
	if (side == NC_SIDE_OUT && ends.dport == bpf_htons(NC_DNS_PORT))
		question = bpf_map_lookup_elem(&resolvers, &ends.dst) != NULL;
	if (ends.sport == bpf_htons(NC_DNS_PORT)) {
		resolver = bpf_map_lookup_elem(&resolvers, &ends.src);
		if (resolver && side == NC_SIDE_OUT)
			answer = *resolver & NC_RESOLVER_LOCAL && nc_is_resolver_socket(sk, &ends);
		if (resolver && side == NC_SIDE_IN && !(*resolver & NC_RESOLVER_LOCAL)) {
			answer = skb->ifindex != NC_LOOPBACK_IFINDEX;
			if (!answer)
				NC_COUNT(w.stats->astray);
		}
	}
	if (!question && !answer)
		return 0;
	w.dns = nc_take_message();
	if (!w.dns) {
		NC_COUNT(w.stats->failed);
		return 0;
	}
	w.now = bpf_ktime_get_boot_ns() / 1000000000;
	nc_read_message(&w, skb, &ends, question, answer);
	*(volatile __u32 *)&w.dns->busy = 0;
	return 0;
}

SEC("cgroup_skb/ingress") int names_in(struct __sk_buff *skb)
{
	nc_watch(skb, NC_SIDE_IN);
	return 1;
}

SEC("cgroup_skb/egress") int names_out(struct __sk_buff *skb)
{
	nc_watch(skb, NC_SIDE_OUT);
	return 1;
}
