// SPDX-License-Identifier: GPL-2.0-only
/*
 * Captures in front of all classifiers of tcx, whatever these then do. What comes by goes on as it is.
 */
#include <netctl/lib/ctx_skb.h>

#include <netctl/lib/capture.h>

SEC("tc")
int tc_capture(struct __sk_buff *skb)
{
	struct nc_captured *record;
	struct nc_capture_counts *counts;
	struct nc_packet packet;
	__u32 zero = 0;

	counts = bpf_map_lookup_elem(&capture_counts, &zero);
	if (!counts || !nc_capture_wants(skb, &packet, counts))
		return TC_ACT_UNSPEC;
	counts->matched++;
	record = nc_capture(skb, packet.len < snaplen ? packet.len : snaplen, packet.len);
	if (!record) {
		counts->lost++;
		return TC_ACT_UNSPEC;
	}
	if (skb->vlan_present) {
		record->vlan_tci = skb->vlan_tci;
		record->vlan_proto = skb->vlan_proto;
	}
	bpf_ringbuf_submit(record, 0);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
