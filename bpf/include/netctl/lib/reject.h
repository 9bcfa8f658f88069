/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * `reject`: the answer to a packet that is refused, in the packet's own buffer, back by the way that it came.
 * TCP gets a RST (RFC 9293, 3.10.7.1), all else port unreachable of ICMP or ICMPv6. Silent stays what RFC 1122
 * (3.2.2) and RFC 4443 (2.4 e) say: a RST, an ICMP error, what is sent to many, a fragment behind the first, and
 * what has no sender.
 *
 * The same as userspace/testing/answer.cpp, which the prog suite compares it with.
 */
#ifndef NETCTL_LIB_REJECT_H
#define NETCTL_LIB_REJECT_H

#include <netctl/lib/bpf.h>

#ifndef NETCTL_LIB_CTX_H
#error "include the hook's ctx_*.h before reject.h"
#endif

#include <netctl/abi/rule.h>
#include <netctl/lib/frame.h>
#include <netctl/lib/limit.h>
#include <netctl/lib/ruleset.h>

#define NC_ICMP_SIZE 8
/* An answer's IPv4 or IPv6 header and that of ICMP end here; what is quoted follows. */
#define NC_QUOTE_AT (sizeof(struct ipv6hdr) + NC_ICMP_SIZE)
/* The least length of a frame on the wire. What was padded to it goes on to be, with zeroes. */
#define NC_LEAST_FRAME 60
#define NC_ETHER_ROOM 32
#define NC_RST_ROOM 128

/* What is known of the packet that is answered. Offsets count from its IP header. */
struct nc_refused {
	__u32 ip;	 /* where that is in the frame */
	__u32 frame;	 /* length */
	__u32 total;	 /* of the IP packet */
	__u32 quoted;	 /* bytes of it in nc_answer::error */
	__u32 transport; /* header of the upper layer */
	__u32 proto;
	__u32 ipv4;
	__u32 open; /* nc_ctx_checksum_is_open() */
};

/* Where an answer is made: there is no room on the stack. */
struct nc_answer {
	struct nc_refused packet;
	__u8 ether[NC_ETHER_ROOM]; /* the link header with its tags */
	__u8 rst[NC_RST_ROOM];
	__u8 error[NC_QUOTE_AT + NC_ERROR_QUOTE + sizeof(struct tcphdr)];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_answer);
} answers SEC(".maps");

/* Outlives a commit, like `stats`. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_rejects);
} rejects SEC(".maps");

/* Between two ICMP errors, and how far ahead a burst of them may be. */
const volatile __u32 errors_interval = NC_ERRORS_INTERVAL_NS;
const volatile __u32 errors_burst = NC_ERRORS_BURST_NS;

static __u64 errors_arrival;

enum nc_answered { NC_ANSWERED, NC_ANSWER_SILENT, NC_ANSWER_SUPPRESSED, NC_ANSWER_FAILED };

/* `size`, from 1 to `most`, a power of 2, in a form from which 6.1's verifier learns both bounds. */
static __always_inline __u32 nc_size(__u32 size, __u32 most)
{
	nc_opaque(size);
	return ((size - 1) & (most - 1)) + 1;
}

static __always_inline __u16 nc_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The sum of a pseudo header: the addresses from `addresses` on, protocol, and length. */
static __always_inline __u64 nc_pseudo(void *addresses, bool ipv4, __u32 proto, __u32 length)
{
	__u64 seed = (__u64)bpf_htonl(length) + bpf_htonl(proto);

	seed = (seed & 0xffffffff) + (seed >> 32);
	return (__u32)bpf_csum_diff(NULL, 0, addresses, ipv4 ? 8 : 32, seed);
}

static __always_inline bool nc_answers_ipv4(const struct iphdr *ip, bool loopback)
{
	__u32 from = bpf_ntohl(ip->saddr) >> 24, to = bpf_ntohl(ip->daddr) >> 24;

	return from && from < 224 && (from != 127 || loopback) && to < 224 &&
	       !(bpf_ntohs(ip->frag_off) & 0x1fff);
}

static __always_inline bool nc_answers_ipv6(const struct ipv6hdr *ip, bool loopback)
{
	const __be32 *from = (const __be32 *)&ip->saddr;
	const __u8 *first = (const __u8 *)&ip->saddr, *to = (const __u8 *)&ip->daddr;

	if (*first == 0xff || *to == 0xff)
		return false;
	/* :: and ::1 */
	if (from[0] || from[1] || from[2] || from[3] & ~bpf_htonl(1))
		return true;
	return from[3] && loopback;
}

/* Reads the packet into `a`, and tells what is to be known of it; false if it is not to be answered. By itself, for
 * the stack's sake, as is each answer. */
static __noinline bool nc_read_refused(nc_ctx *ctx, struct nc_answer *a)
{
	struct nc_refused *r = &a->packet;
	bool loopback = nc_ctx_ifindex(ctx) == 1; /* in every namespace */
	__u32 at = 0, available, total, transport, quoted;

	if (nc_ctx_has_ether(ctx)) {
		at = nc_ip_offset(ctx);
		if (nc_ctx_load(ctx, 0, a->ether, nc_size(at, NC_ETHER_ROOM)))
			return false;
		/* To many, or as if from many. */
		if (a->ether[0] & 1 || a->ether[6] & 1)
			return false;
	}
	r->ip = at;
	r->frame = nc_ctx_length(ctx);
	available = r->frame - at;
	if (r->ipv4) {
		struct iphdr *ip = (void *)a->error + NC_QUOTE_AT;

		if (nc_ctx_load(ctx, at, ip, sizeof(*ip)) || !nc_answers_ipv4(ip, loopback))
			return false;
		total = bpf_ntohs(ip->tot_len);
		if (!total && nc_ctx_is_super(ctx))
			total = available;
		transport = (*(__u8 *)ip & 0xf) * 4;
	} else {
		struct ipv6hdr *ip = (void *)a->error + NC_QUOTE_AT;
		__u64 found;

		if (nc_ctx_load(ctx, at, ip, sizeof(*ip)) || !nc_answers_ipv6(ip, loopback))
			return false;
		total = bpf_ntohs(ip->payload_len) + sizeof(*ip);
		if (!ip->payload_len && nc_ctx_is_super(ctx))
			total = available;
		found = nc_chain(at + sizeof(*ip), ip->nexthdr, NC_FRAG_NONE);
		if (nc_is_extension(ip->nexthdr))
			found = nc_walk_extensions(ctx, at + sizeof(*ip), at + total, ip->nexthdr);
		if (NC_CHAIN_FAULT(found) || NC_CHAIN_FRAG(found) == NC_FRAG_LATER)
			return false;
		transport = NC_CHAIN_OFFSET(found) - at;
	}
	r->total = total;
	r->transport = transport;
	quoted = nc_size(total < NC_ERROR_QUOTE ? total : NC_ERROR_QUOTE, NC_ERROR_QUOTE);
	r->quoted = quoted;
	return !nc_ctx_load(ctx, at, a->error + NC_QUOTE_AT, quoted);
}

/* An IPv4 or IPv6 header at `at`, from the packet's destination to its source. */
static __always_inline void nc_answer_ip(struct nc_answer *a, void *at, bool ipv4, __u32 proto,
					 __u32 payload)
{
	if (ipv4) {
		struct iphdr *ip = at, *was = (void *)a->error + NC_QUOTE_AT;

		__builtin_memset(ip, 0, sizeof(*ip));
		*(__u8 *)ip = 0x45;
		ip->tot_len = bpf_htons(sizeof(*ip) + payload);
		ip->frag_off = bpf_htons(0x4000);
		ip->ttl = 64;
		ip->protocol = proto;
		ip->saddr = was->daddr;
		ip->daddr = was->saddr;
		ip->check = ~nc_fold(bpf_csum_diff(NULL, 0, (void *)ip, sizeof(*ip), 0));
	} else {
		struct ipv6hdr *ip = at, *was = (void *)a->error + NC_QUOTE_AT;

		*(__be32 *)ip = bpf_htonl(0x60000000);
		ip->payload_len = bpf_htons(payload);
		ip->nexthdr = proto;
		ip->hop_limit = 64;
		__builtin_memcpy(&ip->saddr, &was->daddr, sizeof(ip->saddr));
		__builtin_memcpy(&ip->daddr, &was->saddr, sizeof(ip->daddr));
	}
}

/* Makes the frame `size` bytes of an answer, which are at `from`. */
static __always_inline enum nc_answered nc_send(nc_ctx *ctx, struct nc_answer *a, void *from,
						__u32 size)
{
	__u32 at = a->packet.ip;
	__u8 mac[6];

	if (nc_ctx_resize(ctx, a->packet.frame, at + size) || nc_ctx_store(ctx, at, from, size))
		return NC_ANSWER_FAILED;
	if (!at)
		return NC_ANSWERED;
	__builtin_memcpy(mac, a->ether, sizeof(mac));
	__builtin_memcpy(a->ether, a->ether + 6, sizeof(mac));
	__builtin_memcpy(a->ether + 6, mac, sizeof(mac));
	return nc_ctx_store(ctx, 0, a->ether, nc_size(at, NC_ETHER_ROOM)) ? NC_ANSWER_FAILED :
									    NC_ANSWERED;
}

static __noinline int nc_send_rst(nc_ctx *ctx, struct nc_answer *a)
{
	const struct nc_refused *r = &a->packet;
	__u32 header = r->ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	struct tcphdr *tcp = (void *)a->rst + header, *was;
	__u32 at = r->transport, size = header + sizeof(*tcp), least, flags, data;
	__u64 pseudo;
	__u8 *bytes;

	if (at > NC_ERROR_QUOTE - sizeof(*was) || at + sizeof(*was) > r->quoted)
		return NC_ANSWER_SILENT;
	nc_opaque(at);
	at &= NC_ERROR_QUOTE - 1;
	was = (void *)a->error + NC_QUOTE_AT + at;
	bytes = (__u8 *)was;
	flags = bytes[13];
	data = (bytes[12] >> 4) * 4;
	if (flags & 4 || data < sizeof(*was) || at + data > r->total)
		return NC_ANSWER_SILENT;

	__builtin_memset(a->rst, 0, sizeof(a->rst));
	nc_answer_ip(a, a->rst, r->ipv4, NC_PROTO_TCP, sizeof(*tcp));
	tcp->source = was->dest;
	tcp->dest = was->source;
	bytes = (__u8 *)tcp;
	bytes[12] = sizeof(*tcp) / 4 << 4;
	if (flags & 16) { /* ACK */
		tcp->seq = was->ack_seq;
		bytes[13] = 4;
	} else { /* SYN and FIN take a number each */
		data = r->total - at - data + (flags >> 1 & 1) + (flags & 1);
		tcp->ack_seq = bpf_htonl(bpf_ntohl(was->seq) + data);
		bytes[13] = 4 | 16;
	}
	pseudo = nc_pseudo(a->rst + (r->ipv4 ? 12 : 8), r->ipv4, NC_PROTO_TCP, sizeof(*tcp));
	tcp->check = r->open ? nc_fold(pseudo) :
			       ~nc_fold(bpf_csum_diff(NULL, 0, (void *)tcp, sizeof(*tcp), pseudo));

	/* No helper makes an skb shorter than the headers that it had. */
	least = r->ip + r->transport;
	if (least < NC_LEAST_FRAME)
		least = NC_LEAST_FRAME;
	if (least > r->frame)
		least = r->frame;
	if (size < least - r->ip)
		size = least - r->ip;
	if (size > NC_RST_ROOM)
		size = NC_RST_ROOM;
	return nc_send(ctx, a, a->rst, nc_size(size, NC_RST_ROOM));
}

static __always_inline bool nc_is_about_error(const struct nc_answer *a)
{
	const struct nc_refused *r = &a->packet;
	__u32 at = r->transport, type;

	if (r->proto != (r->ipv4 ? NC_PROTO_ICMP : NC_PROTO_ICMPV6))
		return false;
	if (at > NC_ERROR_QUOTE - 2 || at + 2 > r->quoted)
		return true; /* nobody knows */
	nc_opaque(at);
	at &= NC_ERROR_QUOTE - 1;
	type = a->error[NC_QUOTE_AT + at];
	/* A redirect is one in this respect. */
	return r->ipv4 ? type == 5 || type == 4 || nc_is_icmp_error(true, type) :
			 type < 128 || type == 137;
}

static __noinline int nc_send_error(nc_ctx *ctx, struct nc_answer *a)
{
	const struct nc_refused *r = &a->packet;
	__u32 quoted = nc_size(r->quoted, NC_ERROR_QUOTE), even;
	__u8 *icmp = a->error + sizeof(struct ipv6hdr), *ipv4 = icmp - sizeof(struct iphdr);
	__u64 sum, pseudo = 0;

	if (nc_is_about_error(a))
		return NC_ANSWER_SILENT;
	if (errors_interval && nc_take(&errors_arrival, bpf_ktime_get_ns(), errors_interval,
				       errors_burst) != NC_LIMIT_WITHIN)
		return NC_ANSWER_SUPPRESSED;
	if (r->ipv4)
		nc_answer_ip(a, ipv4, true, NC_PROTO_ICMP, NC_ICMP_SIZE + quoted);
	else
		nc_answer_ip(a, a->error, false, NC_PROTO_ICMPV6, NC_ICMP_SIZE + quoted);
	__builtin_memset(icmp, 0, NC_ICMP_SIZE);
	icmp[0] = r->ipv4 ? 3 : 1;
	icmp[1] = r->ipv4 ? 3 : 4;

	/* The sum is of whole words. */
	a->error[NC_QUOTE_AT + quoted] = 0;
	a->error[NC_QUOTE_AT + quoted + 1] = 0;
	a->error[NC_QUOTE_AT + quoted + 2] = 0;
	even = (quoted + 3) & ~3u;
	if (!r->ipv4)
		pseudo = nc_pseudo(a->error + 8, false, NC_PROTO_ICMPV6, NC_ICMP_SIZE + quoted);
	sum = (__u32)bpf_csum_diff(NULL, 0, (void *)a->error + NC_QUOTE_AT, even, pseudo);
	*(__u16 *)(icmp + 2) = ~nc_fold(bpf_csum_diff(NULL, 0, (void *)icmp, NC_ICMP_SIZE, sum));
	/* Whoever sends it on puts a checksum where that of UDP was: over the rest, and what stands there. From this
	 * start it comes to zero in one's complement, in a field that has no meaning. */
	if (r->open)
		*(__u16 *)(icmp + 6) = nc_fold(pseudo);
	if (r->ipv4)
		return nc_send(ctx, a, ipv4, sizeof(struct iphdr) + NC_ICMP_SIZE + quoted);
	return nc_send(ctx, a, a->error, NC_QUOTE_AT + quoted);
}

/* Answers a packet that is refused: turns the frame into the answer. */
static __always_inline enum nc_answered nc_answer(nc_ctx *ctx, const struct nc_packet *p)
{
	__u32 zero = 0;
	struct nc_answer *a = bpf_map_lookup_elem(&answers, &zero);
	struct nc_refused *r;

	if (!a)
		return NC_ANSWER_FAILED;
	if (!(p->has & (NC_HAS_IPV4 | NC_HAS_IPV6)))
		return NC_ANSWER_SILENT;
	r = &a->packet;
	r->ipv4 = p->has & NC_HAS_IPV4;
	r->proto = p->proto;
	if (!nc_read_refused(ctx, a))
		return NC_ANSWER_SILENT;
	r->open = nc_ctx_checksum_is_open(ctx, r->ip);
	/* An answer has the checksum elsewhere then. */
	if (r->open && ((r->proto != NC_PROTO_TCP && r->proto != NC_PROTO_UDP) ||
			r->transport != (r->ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr))))
		return NC_ANSWER_FAILED;
	return r->proto == NC_PROTO_TCP ? nc_send_rst(ctx, a) : nc_send_error(ctx, a);
}

/* Answers the packet, if it is to be answered, and counts. True if the frame is the answer now, and to be sent
 * out of the interface that the packet came by. */
static __always_inline bool nc_reject(nc_ctx *ctx, const struct nc_packet *p)
{
	struct nc_rejects *counted;
	enum nc_answered answered;
	__u32 zero = 0;

	if (simulate || !(actions_used & NC_ACTION_REJECT))
		return false;
	answered = nc_answer(ctx, p);
	counted = bpf_map_lookup_elem(&rejects, &zero);
	if (counted) {
		counted->packets++;
		counted->silent += answered == NC_ANSWER_SILENT;
		counted->suppressed += answered == NC_ANSWER_SUPPRESSED;
		counted->failed += answered == NC_ANSWER_FAILED;
	}
	return answered == NC_ANSWERED;
}

#endif
