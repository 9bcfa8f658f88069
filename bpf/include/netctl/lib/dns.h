/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading DNS messages (RFC 1035; pointers in names: 4.1.4). A message is copied into memory of the CPU and read
 * there. Whatever changes while names are walked is in that memory too, and not on the stack: before Linux 6.7 the
 * verifier goes through the function of a loop only once, and would take it for what it was before the loop.
 */
#ifndef NETCTL_LIB_DNS_H
#define NETCTL_LIB_DNS_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/names.h>

#define NC_DNS_HEADER 12
#define NC_DNS_LABELS 128 /* a name has 127 at most */
/* What reading of a few bytes behind the message may touch. */
#define NC_DNS_SLACK 16

enum nc_dns_walk { NC_DNS_GOES_ON = 0, NC_DNS_ENDED = 1, NC_DNS_BROKEN = 2 };

struct nc_dns {
	__u32 busy;
	__u32 length; /* bytes of data */
	bool cut;     /* there were more */
	__u8 walk;    /* enum nc_dns_walk */
	__u8 reserved[2];
	/* The name that is read, or was last. */
	__u32 at;     /* where reading goes on */
	__u32 behind; /* where its place in the message ends: behind the first pointer */
	__u32 lowest; /* pointers have to lead to before this, so they end */
	__u32 left;   /* bytes of this label */
	__u32 hops;
	__u32 size;   /* bytes of `name` */
	__u32 labels; /* used of `label` */
	__u64 hash;   /* of `name` from the first byte on, for telling whether two are the same */
	/* The names above it, the shortest first. */
	__u32 back;
	__u64 suffix;
	bool wanted;
	__u8 reserved2[7];
	/* The message. */
	__u32 questions, records; /* that are still to be read */
	__u64 question;		  /* hash of all questions */
	__u32 first_record;
	__u32 asked[NC_DNS_QUESTIONS]; /* where names that are wanted begin */
	__u32 asks;
	/* The name whose addresses are wanted now: that was asked for, or what it is an alias of. */
	__u64 owner;
	__u32 owner_at;		   /* one place in the message where it stands */
	struct nc_learnt fresh;	   /* with the name that was asked for */
	__u8 label[NC_DNS_LABELS]; /* where they begin in `name` */
	__u8 name[256];
	__u8 data[NC_DNS_BYTES + NC_DNS_SLACK];
};

/* What loops hand to their functions. */
struct nc_dns_walker {
	struct nc_dns *dns;
	struct nc_name_stats *stats;
	const struct nc_name_settings *settings;
	__u32 now; /* second of CLOCK_BOOTTIME */
};

static __always_inline __u32 nc_dns_byte(const struct nc_dns *d, __u32 at)
{
	return d->data[at & (NC_DNS_BYTES - 1)];
}

static __always_inline __u32 nc_dns_u16(const struct nc_dns *d, __u32 at)
{
	at &= NC_DNS_BYTES - 1;
	return d->data[at] << 8 | d->data[at + 1];
}

static __always_inline __u32 nc_dns_u32(const struct nc_dns *d, __u32 at)
{
	at &= NC_DNS_BYTES - 1;
	return (__u32)d->data[at] << 24 | d->data[at + 1] << 16 | d->data[at + 2] << 8 |
	       d->data[at + 3];
}

/* Whether so many bytes of the message are there. */
static __always_inline bool nc_dns_has(const struct nc_dns *d, __u32 at, __u32 bytes)
{
	return at <= NC_DNS_BYTES && at + bytes <= d->length;
}

/* One byte of a name, or a pointer. */
static long nc_dns_name_step(__u32 i, struct nc_dns_walker *w)
{
	struct nc_dns *d = w->dns;
	__u32 at = d->at, target, size = d->size;
	__u8 byte;

	d->walk = NC_DNS_BROKEN;
	if (!nc_dns_has(d, at, 1))
		return 1;
	byte = nc_dns_byte(d, at++);
	if (!d->left) {
		if (byte >= 0xc0) {
			if (!nc_dns_has(d, at, 1))
				return 1;
			target = (byte & 0x3f) << 8 | nc_dns_byte(d, at++);
			if (!d->behind)
				d->behind = at;
			if (target < NC_DNS_HEADER || target >= d->lowest ||
			    d->hops++ >= NC_DNS_HOPS)
				return 1;
			d->lowest = d->at = target;
			d->walk = NC_DNS_GOES_ON;
			return 0;
		}
		if (byte > 63)
			return 1;
		if (!byte) {
			if (!d->behind)
				d->behind = at;
			d->walk = NC_DNS_ENDED;
			return 1;
		}
		d->left = byte;
		d->label[d->labels++ & (NC_DNS_LABELS - 1)] = size;
	} else {
		d->left--;
		if (byte >= 'A' && byte <= 'Z')
			byte += 'a' - 'A';
	}
	if (size >= NC_NAME_BYTES)
		return 1;
	d->name[size & 255] = byte;
	d->size = size + 1;
	d->hash = nc_name_hash_on(d->hash, byte);
	d->at = at;
	d->walk = NC_DNS_GOES_ON;
	return 0;
}

/* Reads the name at `at`, in lower case. False if there is none. */
static __always_inline bool nc_dns_read_name(struct nc_dns_walker *w, __u32 at)
{
	struct nc_dns *d = w->dns;

	d->at = d->lowest = at;
	d->behind = d->left = d->hops = d->size = d->labels = 0;
	d->hash = NC_NAME_HASH_START;
	bpf_loop(NC_NAME_BYTES + NC_DNS_HOPS + 2, nc_dns_name_step, w, 0);
	return d->walk == NC_DNS_ENDED;
}

#endif
