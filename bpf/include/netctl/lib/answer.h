/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What answers from a program have in common: the packet that is answered, and the answer in its own buffer, back by
 * the way that it came. Nothing is answered to what is sent to many, to a fragment behind the first, and to what has
 * no sender (RFC 1122, 3.2.2).
 */
#ifndef NETCTL_LIB_ANSWER_H
#define NETCTL_LIB_ANSWER_H

#include <netctl/lib/bpf.h>

#ifndef NETCTL_LIB_CTX_H
#error "include the hook's ctx_*.h before answer.h"
#endif

#include <netctl/abi/rule.h>
#include <netctl/lib/frame.h>

#define NC_ICMP_SIZE 8
/* An answer's IPv4 or IPv6 header and that of ICMP end here; what is quoted follows. */
#define NC_QUOTE_AT (sizeof(struct ipv6hdr) + NC_ICMP_SIZE)
/* The least length of a frame on the wire. What was padded to it goes on to be, with zeroes. */
#define NC_LEAST_FRAME 60
#define NC_ETHER_ROOM 32
#define NC_TCP_ROOM 128

/* What is known of the packet that is answered. Offsets count from its IP header. */
struct nc_incoming {
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
	struct nc_incoming packet;
	__u8 ether[NC_ETHER_ROOM]; /* the link header with its tags */
	__u8 tcp[NC_TCP_ROOM];	   /* an IP packet with a segment */
	__u8 error[NC_QUOTE_AT + NC_ERROR_QUOTE + sizeof(struct tcphdr)];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_answer);
} answers SEC(".maps");

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
static __noinline bool nc_read_incoming(nc_ctx *ctx, struct nc_answer *a)
{
	struct nc_incoming *r = &a->packet;
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

/* The TCP header of the packet, of which there are 20 bytes; or NULL. */
static __always_inline struct tcphdr *nc_incoming_tcp(struct nc_answer *a)
{
	__u32 at = a->packet.transport;

	if (at > NC_ERROR_QUOTE - sizeof(struct tcphdr) ||
	    at + sizeof(struct tcphdr) > a->packet.quoted)
		return NULL;
	nc_opaque(at);
	at &= NC_ERROR_QUOTE - 1;
	return (void *)a->error + NC_QUOTE_AT + at;
}

/* Where the segment of an answer to TCP is, in nc_answer::tcp. */
static __always_inline struct tcphdr *nc_answer_tcp(struct nc_answer *a)
{
	return (void *)a->tcp + (a->packet.ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
}

/* Sends the segment of `length` bytes at nc_answer_tcp(), of which all but the ports and the checksum is there, in
 * answer to one with the header `was`. `length` is at most 60, and whole words. */
static __always_inline enum nc_answered nc_send_tcp(nc_ctx *ctx, struct nc_answer *a,
						    const struct tcphdr *was, __u32 length)
{
	const struct nc_incoming *r = &a->packet;
	__u32 header = r->ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	__u32 size = header + length, least;
	struct tcphdr *tcp = nc_answer_tcp(a);
	__u64 pseudo;

	nc_answer_ip(a, a->tcp, r->ipv4, NC_PROTO_TCP, length);
	tcp->source = was->dest;
	tcp->dest = was->source;
	((__u8 *)tcp)[12] = length / 4 << 4;
	pseudo = nc_pseudo(a->tcp + (r->ipv4 ? 12 : 8), r->ipv4, NC_PROTO_TCP, length);
	tcp->check = r->open ? nc_fold(pseudo) :
			       ~nc_fold(bpf_csum_diff(NULL, 0, (void *)tcp, length, pseudo));

	/* No helper makes an skb shorter than the headers that it had. */
	least = r->ip + r->transport;
	if (least < NC_LEAST_FRAME)
		least = NC_LEAST_FRAME;
	if (least > r->frame)
		least = r->frame;
	if (size < least - r->ip)
		size = least - r->ip;
	if (size > NC_TCP_ROOM)
		size = NC_TCP_ROOM;
	return nc_send(ctx, a, a->tcp, nc_size(size, NC_TCP_ROOM));
}

#endif
