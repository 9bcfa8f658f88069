/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What `netctl trace tls` gets of handshakes, in its ring `events`. Host byte order but for addresses.
 */
#ifndef NETCTL_ABI_TRACE_TLS_H
#define NETCTL_ABI_TRACE_TLS_H

#include "trace.h"

enum nc_tls_kind {
	NC_TLS_DATA = 1, /* bytes passed on a TCP socket on which a handshake began */
	NC_TLS_END,	 /* `direction` ended */
	NC_TLS_GONE,	 /* the socket is closed, or the other side has reset it */
	NC_TLS_DTLS,	 /* a datagram with a ClientHello of DTLS */
	NC_TLS_QUIC, /* a datagram that begins a connection of QUIC, whose handshake is encrypted */
};

enum nc_tls_direction { NC_TLS_SENT = 0, NC_TLS_RECEIVED = 1 };

/* Bit of nc_tls_record.flags: the programs look no further at this socket. */
#define NC_TLS_LAST (1u << 0)

struct nc_tls_record {
	__u8 kind;
	__u8 direction;
	__u16 flags;
	__u32 netns;
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 cookie;  /* of the socket */
	__u64 cgroup_id;
	/* Bytes of this direction that passed before, since the programs look at the socket. */
	__u64 position;
	__u32 length;	/* DATA: bytes that passed */
	__u32 captured; /* of these, the first ones that follow this header */
	struct nc_trace_ends
		ends; /* datagrams: of the socket, without a remote one if it is not connected */
	struct nc_trace_owner owner; /* whose call it is, or was before */
	__u32 reserved;
};
NC_STATIC_ASSERT(sizeof(struct nc_tls_record) == 112, "nc_tls_record is ABI");

#define NC_TLS_DATAGRAM_LOOK 16 /* bytes of a datagram that tell */

/* What a datagram of `length` bytes begins, NC_TLS_DTLS or NC_TLS_QUIC; 0: neither. `bytes` are its first
 * NC_TLS_DATAGRAM_LOOK ones. RFC 6347 4.1 and 4.3.2; RFC 9000 14.1 and 17.2.2; RFC 9369 3. */
static inline __u32 nc_tls_datagram(const __u8 *bytes, __u32 length)
{
	__u32 version =
		(__u32)bytes[1] << 24 | (__u32)bytes[2] << 16 | (__u32)bytes[3] << 8 | bytes[4];

	if (bytes[0] == 22)
		return bytes[1] == 0xfe && bytes[2] >= 0xfc && !bytes[3] && !bytes[4] &&
				       bytes[13] == 1 ?
			       NC_TLS_DTLS :
			       0;
	if (length < 1200)
		return 0;
	if ((bytes[0] & 0xf0) == 0xc0 && version == 1)
		return NC_TLS_QUIC;
	return (bytes[0] & 0xf0) == 0xd0 && version == 0x6b3343cf ? NC_TLS_QUIC : 0;
}

#endif
