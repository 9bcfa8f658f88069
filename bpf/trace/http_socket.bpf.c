// SPDX-License-Identifier: GPL-2.0-only
/*
 * TCP packets that belong to HTTP connections, for a packet socket of type SOCK_DGRAM, whose frames
 * begin with the network header whatever the link is. The socket itself never gets one: what is
 * wanted goes into the ring, and the filter's answer is always "nothing", so that the kernel neither
 * copies the frame nor wakes anybody.
 */
#include <netctl/lib/bpf.h>

#include <netctl/lib/http.h>

char LICENSE[] SEC("license") = "GPL";

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
#define PACKET_OUTGOING 4
#define EXTENSIONS 8

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct nc_http_flow_key);
	__type(value, struct nc_http_flow);
} flows SEC(".maps");

struct header {
	__u8 source[16]; /* first: compared as words, which must be aligned */
	__u8 target[16];
	__u32 l4;
	__u32 end;
	struct tcphdr tcp;
	bool loaded; /* `tcp` is there */
};

enum found { FOUND_TCP, FOUND_OTHER, FOUND_FRAGMENT, FOUND_DAMAGED };

static __always_inline enum found find_tcp4(struct __sk_buff *skb, __u32 at, struct header *header)
{
	/* Both at once, as each call costs more than all that is done with what it brings. */
	struct {
		struct iphdr ip;
		struct tcphdr tcp;
	} first;
	struct iphdr ip;
	__u32 size, total;

	if (!bpf_skb_load_bytes(skb, at, &first, sizeof(first))) {
		ip = first.ip;
		header->tcp = first.tcp;
		header->loaded = ip.ihl == 5;
	} else if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip))) {
		return FOUND_DAMAGED;
	}
	size = ip.ihl * 4;
	if (ip.version != 4 || size < sizeof(ip))
		return FOUND_DAMAGED;
	if (ip.protocol != IPPROTO_TCP)
		return FOUND_OTHER;
	if (ip.frag_off & bpf_htons(0x3fff))
		return FOUND_FRAGMENT;
	__builtin_memcpy(header->source, &ip.saddr, 4);
	__builtin_memcpy(header->target, &ip.daddr, 4);
	header->l4 = at + size;
	total = bpf_ntohs(ip.tot_len);
	/* 0: merged to more than the field can say */
	header->end = total ? at + total : skb->len;
	return FOUND_TCP;
}

/* A function of its own for the verifier, too: else each way through the extension headers is a way
 * through all that follows. */
__noinline int find_tcp6(struct __sk_buff *skb, __u32 at, struct header *header)
{
	struct ipv6hdr ip;
	__u32 l4 = at + sizeof(ip), payload;
	__u8 next;

	if (!header)
		return FOUND_DAMAGED;
	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
		return FOUND_DAMAGED;
	if (ip.version != 6)
		return FOUND_DAMAGED;
	next = ip.nexthdr;
	for (int i = 0; i < EXTENSIONS && next != IPPROTO_TCP; i++) {
		__u8 extension[4];

		if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60 &&
		    next != 135)
			return FOUND_OTHER;
		if (bpf_skb_load_bytes(skb, l4, extension, sizeof(extension)))
			return FOUND_DAMAGED;
		if (next == 44) {
			if (extension[2] || extension[3] & 0xf9)
				return FOUND_FRAGMENT;
			l4 += 8;
		} else if (next == 51) {
			l4 += (extension[1] + 2) * 4;
		} else {
			l4 += (extension[1] + 1) * 8;
		}
		next = extension[0];
	}
	if (next != IPPROTO_TCP)
		return FOUND_OTHER;
	__builtin_memcpy(header->source, &ip.saddr, 16);
	__builtin_memcpy(header->target, &ip.daddr, 16);
	header->l4 = l4;
	payload = bpf_ntohs(ip.payload_len);
	header->end = payload ? at + sizeof(ip) + payload : skb->len;
	return FOUND_TCP;
}

static __always_inline int order(const __u8 *a, const __u8 *b)
{
	const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b;

	for (int i = 0; i < 4; i++)
		if (x[i] != y[i])
			return x[i] < y[i] ? -1 : 1;
	return 0;
}

/* Records have one of a few sizes, as the verifier must know them; each wastes little. */
#define EMIT(bytes)                                                                                \
	do {                                                                                       \
		struct {                                                                           \
			struct nc_http_packet packet;                                              \
			__u8 data[bytes];                                                          \
		} *record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);                      \
		__u32 size = packet.captured;                                                      \
		if (!record) {                                                                     \
			count->lost++;                                                             \
			return 0;                                                                  \
		}                                                                                  \
		record->packet = packet;                                                           \
		/* One less, so that the verifier of 6.1 sees that it is not 0. */                 \
		size--;                                                                            \
		nc_opaque(size);                                                                   \
		if (size >= (bytes) || bpf_skb_load_bytes(skb, at, record->data, size + 1)) {      \
			count->unreadable++;                                                       \
			bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);                             \
			return 0;                                                                  \
		}                                                                                  \
		count->sent++;                                                                     \
		bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);                                      \
		return 0;                                                                          \
	} while (0)

SEC("socket")
int http_packets(struct __sk_buff *skb)
{
	__u32 zero = 0, at = 0, first = 0, payload, sport, dport, length;
	struct nc_http_packet packet = {};
	enum nc_http_start start = NC_HTTP_START_NO;
	struct nc_http_counters *count;
	struct nc_http_config *cfg;
	struct nc_http_flow_key key __attribute__((aligned(8))) = {};
	struct header header __attribute__((aligned(8))) = {};
	struct tcphdr *tcp = &header.tcp;
	struct nc_http_flow *flow;
	__u16 protocol;
	enum found found;
	int direction, sender = 1;
	bool body = false;

	cfg = bpf_map_lookup_elem(&settings, &zero);
	count = bpf_map_lookup_elem(&counters, &zero);
	if (!cfg || !count || cfg->flags & NC_HTTP_PAUSED)
		return 0;
	/* What leaves through the loopback interface comes back through it. */
	if (skb->pkt_type == PACKET_OUTGOING && skb->ifindex == cfg->loopback)
		return 0;
	count->seen++;
	protocol = bpf_ntohs(skb->protocol);
	for (int i = 0; i < 2 && (protocol == ETH_P_8021Q || protocol == ETH_P_8021AD); i++) {
		__be16 tag[2];

		if (bpf_skb_load_bytes(skb, at, tag, sizeof(tag)))
			return 0;
		protocol = bpf_ntohs(tag[1]);
		at += 4;
	}
	if (protocol == ETH_P_IP)
		found = find_tcp4(skb, at, &header);
	else if (protocol == ETH_P_IPV6)
		found = find_tcp6(skb, at, &header);
	else
		return 0;
	if (found == FOUND_FRAGMENT)
		count->fragments++;
	if (found == FOUND_DAMAGED)
		count->damaged++;
	if (found != FOUND_TCP)
		return 0;
	if ((!header.loaded && bpf_skb_load_bytes(skb, header.l4, tcp, sizeof(*tcp))) ||
	    tcp->doff < 5) {
		count->damaged++;
		return 0;
	}
	sport = bpf_ntohs(tcp->source);
	dport = bpf_ntohs(tcp->dest);
	if (cfg->select & NC_HTTP_SELECT_PORT && !nc_http_port(sport) && !nc_http_port(dport))
		return 0;
	count->selected++;
	payload = header.l4 + tcp->doff * 4;
	length = header.end > skb->len ? skb->len : header.end;
	length = length > payload ? length - payload : 0;
	if (length == 0 && !(cfg->flags & NC_HTTP_WHOLE_FLOWS) && !tcp->fin && !tcp->rst &&
	    !tcp->syn)
		return 0;

	direction = order(header.source, header.target);
	if (direction < 0 || (direction == 0 && sport < dport)) {
		__builtin_memcpy(key.low, header.source, 16);
		__builtin_memcpy(key.high, header.target, 16);
		key.low_port = sport;
		key.high_port = dport;
		sender = 0;
	} else {
		__builtin_memcpy(key.low, header.target, 16);
		__builtin_memcpy(key.high, header.source, 16);
		key.low_port = dport;
		key.high_port = sport;
	}
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow) {
		struct nc_http_flow fresh = {};
		struct {
			__u64 first;
			__u16 rest;
		} __attribute__((packed)) frame;

		if (cfg->flags & NC_HTTP_WHOLE_FLOWS && tcp->syn) {
			start = NC_HTTP_START_MAYBE;
		} else if (length >= 4) {
			if (!bpf_skb_load_bytes(skb, payload, &first, 4))
				start = nc_http_first_bytes(first, 4);
			if (start == NC_HTTP_START_NO && nc_http2_maybe(first) &&
			    length >= sizeof(frame) &&
			    !bpf_skb_load_bytes(skb, payload, &frame, sizeof(frame)))
				start = nc_http2_first_bytes(frame.first, frame.rest);
		} else if (length > 0) {
			if (!bpf_skb_load_bytes(skb, payload, &first, 1))
				start = nc_http_first_bytes(first, 1);
		}
		if (start == NC_HTTP_START_NO) {
			if (length)
				count->other++;
			return 0;
		}
		if (bpf_map_update_elem(&flows, &key, &fresh, BPF_ANY))
			count->no_memory++;
	} else if (tcp->syn || tcp->fin || tcp->rst) {
		/* What comes next with these ports has other numbers. */
		flow->skip[0] = flow->skip[1] = 0;
	} else if (flow->skip[sender]) {
		body = (__s32)(flow->until[sender] - bpf_ntohl(tcp->seq) - length) >= 0;
		flow->skip[sender] = body;
	}

	packet.kind = NC_HTTP_PACKET;
	packet.ifindex = skb->ifindex;
	packet.vlan = skb->vlan_present ? skb->vlan_tci : 0;
	packet.time_ns = bpf_ktime_get_ns();
	packet.length = payload + length - at;
	packet.captured = packet.length;
	if (packet.captured > payload - at + cfg->turn_bytes) {
		packet.captured = payload - at + cfg->turn_bytes;
		count->truncated++;
	}
	if (body) {
		packet.captured = payload - at;
		count->lengths++;
	}
	if (packet.captured > 65535 + 64) {
		packet.captured = 65535 + 64;
		count->truncated++;
	}
	if (packet.captured <= 232)
		EMIT(232);
	if (packet.captured <= 744)
		EMIT(744);
	if (packet.captured <= 1512)
		EMIT(1512);
	if (packet.captured <= 9000)
		EMIT(9000);
	if (packet.captured <= 33000)
		EMIT(33000);
	EMIT(65535 + 65);
}
