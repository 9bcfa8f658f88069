// SPDX-License-Identifier: GPL-2.0-only
/*
 * What processes send and receive over TCP and stream sockets of Unix, taken where the socket layer reports how much it moved:
 * the tracepoints sock_send_length and sock_recv_length, or, where the kernel has none, the return of
 * inet_sendmsg and its kin. Both are below all system calls that move bytes, and above sockmap
 * redirection. The socket is at hand, so nothing is keyed by file descriptor: dup, fork, passing and
 * reuse of descriptors need no care. The buffer comes from the registers of the system call.
 *
 * Positions in the stream are the socket's own (write_seq, copied_seq), so that bytes which passed
 * unseen (splice from a socket, zero-copy receive) are a hole of known length, not an error, and both
 * ends of a connection know each other by them.
 */
#include <vmlinux.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include <netctl/lib/http_calls.h>

char LICENSE[] SEC("license") = "GPL";

#define PIECE_MAX 16000	 /* of one record */
#define PIECE_FIRST 1024 /* read at once where a head may be: most are shorter */
#define FIRST_LOOK 10	 /* read where nothing is known: what HTTP/2 may be known by */
#define PREFACE 24	 /* what an HTTP/2 client sends first */
#define FRAME_HEADER 9
/* Of a DATA frame, copied at least: gRPC has the lengths of its messages there. */
#define FRAME_BODY 1024
#define FRAME_ABSURD (1u << 20) /* no frame but DATA is as large */
#define SCAN_MAX 4096		/* of a piece, looked through for the end of a head */
#define PIECES 65536		/* iovec elements and records of one call */
#define VECTORS 16 /* of a message of sendmmsg, added up to see whether it went out whole */

/* A head is looked for the end of where it is read anyway, as most of what servers send behind it is of
 * no use; userspace has the last word about everything. */
enum half_state { IN_HEAD = 0, IN_BODY = 1, IN_CHUNKS = 2 };

struct half {
	__u64 position;
	__u64 begin;	/* position of the first byte that might have been seen */
	__u64 messages; /* sendmmsg, recvmmsg: the array that is under way */
	__u32 thread;	/* whose call it is */
	__u32 message;	/* the next one of it; 0: none is under way */
	__u32 sequence; /* the socket's, where `position` is */
	__u32 budget;
	__u8 known;
	__u8 state;
	__u8 split; /* the head under way is in more than one piece */
	/* HTTP/2: whether it is known where frames begin; of the one under way, the bytes that come next and are to be
	 * copied, and those behind them that are not; or what there is of its header. */
	__u8 framed;
	__u8 header_have;
	__u8 reserved[3];
	__u32 frame_wanted;
	__u32 frame_rest;
	__u8 header[32]; /* more than it has, for the verifier */
};

#define CONN_HTTP (1u << 0)
#define CONN_OPENED (1u << 1)
#define CONN_SKIP (1u << 2)
#define CONN_PIPELINED (1u << 3)
#define CONN_TURNED (1u << 4) /* with this call; on the stack, the verifier would walk each case */
#define CONN_HTTP2 (1u << 5)

struct conn {
	struct half half[2];
	__u64 cookie;
	__u32 pid;
	__u8 role;
	__u8 turn; /* direction of the last call */
	__u8 flags;
	__u8 heads; /* of requests since the other side last spoke */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct conn);
} conns SEC(".maps");

/* Where the copying is in the caller's buffers: what the stack of 6.1, which rounds up each frame, has no room for of struct
 * gather: four functions are called. */
struct cursor {
	__u64 buffer, available;
	__u32 index; /* of the buffer that comes next */
	__u32 left;  /* bytes that the records did not stand for yet */
	__u32 gap;   /* HTTP/2: bytes behind those in the scratch that are not wanted */
	__u32 body;  /* bytes of a body that are wanted */
	__u8 request;
	__u8 response; /* a head's end ends the copying */
	__u8 pipelined;
};

/* Where a record is put together. One for each program and CPU: the programs may interrupt one
 * another, but not themselves (the kernel skips, and counts, a program that is entered twice). */
struct scratch {
	struct cursor cursor;
	struct nc_http_record record;
	__u8 bytes[2 * PIECE_MAX + 64];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 9);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* The same for what tells of a connection, which is more than the stack of 6.1 has room for. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 9);
	__type(key, __u32);
	__type(value, struct nc_http_open);
} opens SEC(".maps");

/* Whether http_tls.bpf.c runs beside this: what it says carries TLS is not looked at here. */
const volatile __u8 beside_tls;

/* Whether the headers of HTTP/2's frames are followed, so that bodies need not be copied. */
const volatile __u8 follow_frames;

static __always_inline bool submit(struct nc_http_counters *count, void *record, __u32 size)
{
	if (bpf_ringbuf_output(&events, record, size, BPF_RB_NO_WAKEUP) != 0) {
		count->lost++;
		return false;
	}
	count->sent++;
	return true;
}

static __always_inline bool is_unix(const struct sock *sk)
{
	return sk->__sk_common.skc_family == AF_UNIX;
}

static __always_inline bool local_peer(struct sock *sk)
{
	if (is_unix(sk))
		return true;
	if (sk->__sk_common.skc_family == AF_INET)
		return sk->__sk_common.skc_daddr == sk->__sk_common.skc_rcv_saddr ||
		       (sk->__sk_common.skc_daddr & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	const __u32 *local = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32;
	const __u32 *remote = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32;

	return local[0] == remote[0] && local[1] == remote[1] && local[2] == remote[2] &&
	       local[3] == remote[3];
}

/* The other end's cookie, and the path of either: a server's socket has its listener's, a client's seldom one. */
static __always_inline void name_unix(struct nc_http_open *event, struct sock *sk)
{
	struct unix_sock *own = (void *)sk, *peer = (void *)BPF_CORE_READ(own, peer);
	struct unix_address *address = BPF_CORE_READ(own, addr);
	__u32 length;

	event->family = NC_HTTP_UNIX;
	if (peer)
		event->peer = BPF_CORE_READ(peer, sk.__sk_common.skc_cookie.counter);
	if (!address && peer)
		address = BPF_CORE_READ(peer, addr);
	if (!address)
		return;
	length = BPF_CORE_READ(address, len) - sizeof(__kernel_sa_family_t);
	barrier_var(length);
	if (length > NC_HTTP_PATH)
		return;
	if (!bpf_probe_read_kernel(event->path, length,
				   (void *)address + bpf_core_field_offset(address->name) +
					   sizeof(__kernel_sa_family_t)))
		event->path_length = length;
}

static __noinline void open(struct sock *sk, struct conn *conn, struct task_struct *task,
			    struct nc_http_counters *count, __u32 slot)
{
	struct nc_http_open *event = bpf_map_lookup_elem(&opens, &slot);

	if (!event)
		return;
	__builtin_memset(event, 0, sizeof(*event));
	event->record.kind = NC_HTTP_OPEN;
	event->record.flags = conn->flags & CONN_SKIP ? NC_HTTP_SKIPPED : 0;
	event->record.time_ns = bpf_ktime_get_ns();
	event->record.cookie = conn->cookie;
	event->record.pid = conn->pid;
	event->role = conn->role;
	event->netns = sk->__sk_common.skc_net.net->ns.inum;
	event->cgroup_id = bpf_get_current_cgroup_id();
	if (is_unix(sk)) {
		name_unix(event, sk);
	} else {
		event->local_port = sk->__sk_common.skc_num;
		event->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
		if (sk->__sk_common.skc_family == AF_INET) {
			__u32 local = sk->__sk_common.skc_rcv_saddr;
			__u32 remote = sk->__sk_common.skc_daddr;

			event->family = 4;
			__builtin_memcpy(event->local, &local, 4);
			__builtin_memcpy(event->remote, &remote, 4);
		} else {
			event->family = 6;
			BPF_CORE_READ_INTO(&event->local, sk, __sk_common.skc_v6_rcv_saddr);
			BPF_CORE_READ_INTO(&event->remote, sk, __sk_common.skc_v6_daddr);
		}
	}
	bpf_probe_read_kernel_str(event->comm, sizeof(event->comm), task->group_leader->comm);
	event->begin[NC_HTTP_SENT] = conn->half[NC_HTTP_SENT].begin;
	event->begin[NC_HTTP_RECEIVED] = conn->half[NC_HTTP_RECEIVED].begin;
	if (submit(count, event, sizeof(*event)))
		conn->flags |= CONN_OPENED;
}

/* Who reads the end of a Unix socket's stream tells it of the other end, which has no state that others
 * could follow as TCP's has. */
static __noinline void end_of_peer(struct sock *sk, struct nc_http_counters *count)
{
	struct unix_sock *peer = (void *)BPF_CORE_READ((struct unix_sock *)sk, peer);
	struct nc_http_record record = {};

	if (!peer)
		return;
	record.kind = NC_HTTP_END;
	record.direction = NC_HTTP_SENT;
	record.time_ns = bpf_ktime_get_ns();
	record.cookie = BPF_CORE_READ(peer, sk.__sk_common.skc_cookie.counter);
	if (record.cookie)
		submit(count, &record, sizeof(record));
}

/* Positions begin above 0, so that what is lost behind the first byte leaves them above that. */
static __always_inline void begin_half(struct half *half, __u32 sequence)
{
	half->known = 1;
	half->sequence = sequence;
	half->begin = half->position = 1ull << 32 | sequence;
}

/* Whether some process ever had several messages in one call. */
__u32 several_seen;

/* Which message of sendmmsg or recvmmsg this is: the one behind the last, as long as the same thread goes
 * through the same array, and nothing happened that ends the call before its end. Such things are an error
 * (see on_bytes) and a message that went out in part. */
static __always_inline __u64 find_message(struct source *source, __u64 messages, __u32 number)
{
	__u32 thread = bpf_get_current_pid_tgid(), message = 0;
	__u64 at;

	if (source->message && source->message < number && source->messages == messages &&
	    source->thread == thread)
		message = source->message;
	at = messages + message * (sizeof(struct user_msghdr) + 8);
	source->several = 1;
	source->messages = messages;
	source->thread = thread;
	source->message = message + 1 < number ? message + 1 : 0;
	several_seen = 1;
	return at;
}

/* A message that went out in part was the last of its call. */
static __always_inline void check_whole(struct source *source)
{
	struct iovec vector;
	__u64 whole = 0;

	for (__u32 i = 0; i < VECTORS && i < source->iovs; i++) {
		if (bpf_probe_read_user(&vector, sizeof(vector), (struct iovec *)source->iov + i))
			return;
		whole += vector.iov_len;
	}
	if (whole > source->length)
		source->message = 0;
}

/* For find_source(), which is seldom here. */
static __always_inline struct nc_http_counters *my_counters(void)
{
	static struct nc_http_counters nowhere;
	__u32 zero = 0;
	struct nc_http_counters *count = bpf_map_lookup_elem(&counters, &zero);

	return count ?: &nowhere;
}

/* 0 if there are no bytes to be had. A function of its own for the verifier, too: else each of the ways
 * through it is a way through all that follows. */
__noinline int find_source(struct source *source)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs;
	struct user_msghdr header;
	__u64 at, third, number;

	if (!source)
		return 0;
	if (task->flags & (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER)) {
		my_counters()->io_uring++;
		return 0;
	}
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	if (REGS_FOREIGN(regs)) {
		my_counters()->unsupported++;
		return 0;
	}
	at = REGS_ARG2(regs);
	third = REGS_ARG3(regs);
	number = REGS_NR(regs);
	barrier_var(third); /* loaded here, not where it is used together with other pointers */
	switch (number) {
	case SYS_READ:
	case SYS_WRITE:
	case SYS_SENDTO:
	case SYS_RECVFROM:
		source->buffer = at;
		return 1;
	case SYS_READV:
	case SYS_WRITEV:
	case SYS_PREADV:
	case SYS_PWRITEV:
	case SYS_PREADV2:
	case SYS_PWRITEV2:
		source->iov = at;
		source->iovs = third;
		return 1;
	case SYS_RECVMMSG:
	case SYS_SENDMMSG:
		/* An mmsghdr begins with the msghdr. */
		if ((__u32)third > 1)
			at = find_message(source, at, third);
		/* fall through */
	case SYS_SENDMSG:
	case SYS_RECVMSG:
		if (bpf_probe_read_user(&header, sizeof(header), (void *)at)) {
			my_counters()->unreadable++;
			return 0;
		}
		source->iov = (__u64)header.msg_iov;
		source->iovs = header.msg_iovlen;
		if (source->several && number == SYS_SENDMMSG)
			check_whole(source);
		return 1;
	case SYS_SENDFILE:
	case SYS_SPLICE:
	case SYS_TEE:
		my_counters()->lengths++;
		return 0;
	case SYS_IO_URING:
		my_counters()->io_uring++;
		return 0;
	}
	my_counters()->unsupported++;
	return 0;
}

__noinline int look_at_start(__u32 first, __u32 length)
{
	return nc_http_first_bytes(first, length);
}

__noinline int look_at_frame(__u64 first, __u32 rest)
{
	return nc_http2_first_bytes(first, rest);
}

/* "PRI * HT": an own request line that HTTP/1 servers refuse. */
static __always_inline bool look_at_preface(__u64 first)
{
	return first == 0x5448202a20495250;
}

#define SCAN_CHUNKED (1u << 31)

/* Looks for the end of a head in what was read. Returns where the body begins, or 0 if that is not
 * there, and SCAN_CHUNKED if there was a field that says so. */
struct search {
	struct scratch *scratch;
	__u32 slot;
	__u32 from;
	__u32 length;
	__u32 word; /* offset of the one with the end in it */
	__u32 hits; /* a bit for each byte of it where the end begins */
	__u64 chunked;
};

#define SCAN_BLOCK 128

static const __u64 ones = 0x0101010101010101;

/* The highest bit of each byte of `word` that is `byte`; above such a byte, which is lower in memory, one
 * that is `byte` + 1 may be taken for it. */
static __always_inline __u64 has_byte(__u64 word, __u8 byte)
{
	word ^= ones * byte;
	return (word - ones) & ~word & (ones << 7);
}

#define LOOK_CHUNKED (1u << 8)

/* A bit for each of the eight bytes at which the end of a head begins, and LOOK_CHUNKED for a line end among
 * them with a Transfer-Encoding behind. */
__noinline __u32 look_closely(__u32 slot, __u32 from)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	__u64 hits = 0, chunked = 0;

	if (!scratch || from > PIECE_MAX + SCAN_MAX + SCAN_BLOCK)
		return 0;
		/* Without branches, of which the verifier would walk each combination. */
#pragma unroll
	for (__u32 k = 0; k < 8; k++) {
		const __u8 *at = &scratch->bytes[from + k];
		__u64 end = *(__u32 *)at ^ NC_FOUR('\r', '\n', '\r', '\n');
		/* "transfer" */
		__u64 field = (*(__u64 *)(at + 2) | 0x20 * ones) ^ 0x726566736e617274;

		hits |= ((end - 1) >> 63) << k;
		chunked |= ~(field | -field) >> 63;
	}
	return hits | (chunked ? LOOK_CHUNKED : 0);
}

static long scan_block(__u32 block, struct search *search)
{
	__u32 from = search->from, start = block * SCAN_BLOCK;
	const __u8 *bytes;
	__u64 at;

	if (start >= SCAN_MAX || start + 4 > search->length)
		return 1;
	at = from + start;
	/* The verifier of 6.1 needs the very register that is compared: before, since a copy of it is
	 * not bounded with it, and behind, lest what was put on the stack before is used. */
	barrier_var(at);
	if (at > PIECE_MAX + SCAN_MAX)
		return 1;
	barrier_var(at);
	bytes = &search->scratch->bytes[at];
	for (__u32 i = 0; i < SCAN_BLOCK; i += 8) {
		__u64 here = has_byte(*(__u64 *)(bytes + i), '\r'), behind;
		__u32 hits = 0;

		if (!here)
			continue;
		/* Two bytes on, another one (the end of the head) or a T (a field that might be
		 * Transfer-Encoding); in most lines there is neither. */
		behind = *(__u64 *)(bytes + i + 2);
		if (!(here & (has_byte(behind, '\r') | has_byte(behind | 0x20 * ones, 't'))))
			continue;
		hits = look_closely(search->slot, at + i);
		search->chunked |= hits & LOOK_CHUNKED;
		hits &= 0xff;
		if (hits) {
			search->word = start + i;
			search->hits = hits;
			return 1;
		}
	}
	return 0;
}

/* A function of its own for the verifier, too, which would else walk it for each way to get here. */
__noinline __u32 scan(__u32 slot, __u32 from, __u32 length)
{
	struct search search = { .slot = slot, .from = from, .length = length };
	__u32 body;

	search.scratch = bpf_map_lookup_elem(&scratches, &slot);
	if (!search.scratch)
		return 0;
	bpf_loop(SCAN_MAX / SCAN_BLOCK, scan_block, &search, 0);
	if (!search.hits)
		return 0;
	body = search.word + 4;
	if (!(search.hits & 0xf)) {
		search.hits >>= 4;
		body += 4;
	}
	if (!(search.hits & 3)) {
		search.hits >>= 2;
		body += 2;
	}
	body += !(search.hits & 1);
	/* Behind the length there is what an earlier call left. */
	if (body > length)
		return 0;
	return body | (search.chunked ? SCAN_CHUNKED : 0);
}

/* 0, which the verifier does not know. Kernels before 6.7 verify the function that bpf_loop() calls as if it
 * were called once, and take out branches that are not taken then: what a later call finds changed must
 * not look like a constant to the first. It also has one state of the loop to walk then, not one for each
 * combination of what the fields may be. */
__u32 unknown_zero;

/* The highest bit of each byte of `word` that is `byte`, and no other. */
static __always_inline __u64 is_byte(__u64 word, __u8 byte)
{
	word ^= ones * byte;
	return ~(((word & ~(ones << 7)) + ~(ones << 7)) | word) & (ones << 7);
}

/* As scan(), of the first `length` bytes of the scratch, at most PIECE_FIRST: most heads are there, and less is
 * called on the way. */
__noinline __u32 scan_first(__u32 slot, __u32 length)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	__u32 body = 0, chunked = unknown_zero;

	if (!scratch)
		return 0;
	for (__u32 i = 0; i < PIECE_FIRST; i += 8) {
		const __u8 *at = &scratch->bytes[i];
		__u64 here, behind, end;

		if (i + 4 > length)
			break;
		here = has_byte(*(__u64 *)at, '\r');
		if (!here)
			continue;
		behind = *(__u64 *)(at + 2);
		if (here & has_byte(behind | 0x20 * ones, 't'))
			chunked |= look_closely(slot, i);
		end = is_byte(*(__u64 *)at, '\r') & is_byte(*(__u64 *)(at + 1), '\n') &
		      is_byte(behind, '\r') & is_byte(*(__u64 *)(at + 3), '\n');
		if (!end)
			continue;
		body = i + 4;
		if (!(end & 0xffffffff)) {
			end >>= 32;
			body += 4;
		}
		if (!(end & 0xffff)) {
			end >>= 16;
			body += 2;
		}
		body += !(end & 0xff);
		break;
	}
	if (body > length)
		return 0;
	return body && chunked & LOOK_CHUNKED ? body | SCAN_CHUNKED : body;
}

struct gather {
	struct scratch *scratch;
	struct nc_http_counters *count;
	struct half *half;
	struct source source;
	__u32 slot;
	__u32 filled;
	__u32 wanted; /* bytes that are still to be copied */
	__u32 rest;   /* bytes of the call that were not looked at yet */
	__u32 budget;
};

static __always_inline void flush(struct gather *gather, __u32 length)
{
	struct nc_http_record *record = &gather->scratch->record;
	__u32 size = gather->filled;

	record->captured = size;
	record->length = length;
	barrier_var(size); /* as above */
	if (size > PIECE_MAX)
		size = PIECE_MAX;
	submit(gather->count, record, sizeof(*record) + size);
	record->position += length;
	gather->scratch->cursor.left -= length;
	gather->filled = 0;
}

/* `found` is what scan() said of `take` bytes in the scratch from `filled` on. */
static __always_inline void body_found(struct gather *gather, __u32 found, __u32 filled, __u32 take)
{
	__u32 begin = found & ~SCAN_CHUNKED, behind;
	__u32 wanted = gather->scratch->cursor.body;
	struct half *half = gather->half;

	if (!found) {
		half->split = 1;
		return;
	}
	/* In pieces, the field may have lain across two of them. */
	if (found & SCAN_CHUNKED || half->split) {
		half->state = IN_CHUNKS;
		gather->budget = -1;
		gather->wanted = gather->rest;
		return;
	}
	half->state = IN_BODY;
	behind = take > begin ? take - begin : 0;
	if (!gather->scratch->cursor.response) {
		/* A second request behind the first, as far as it has no body. */
		__u64 at = filled + begin;

		barrier_var(at); /* as above */
		if (behind >= 4 && at <= PIECE_MAX + SCAN_MAX) {
			__u32 next;

			__builtin_memcpy(&next, &gather->scratch->bytes[at], 4);
			if (look_at_start(next, 4) == NC_HTTP_START_REQUEST)
				gather->scratch->cursor.pipelined = 1;
		}
		return;
	}
	gather->budget = wanted > behind ? wanted - behind : 0;
	if (gather->wanted > gather->budget)
		gather->wanted = gather->budget;
}

/* Goes on with the next buffer; 1 if there is none. */
static __always_inline long next_buffer(struct gather *gather)
{
	struct cursor *cursor = &gather->scratch->cursor;
	struct iovec vector;

	if (cursor->index >= gather->source.iovs)
		return 1;
	if (bpf_probe_read_user(&vector, sizeof(vector),
				(struct iovec *)gather->source.iov + cursor->index)) {
		gather->count->unreadable++;
		return 1;
	}
	cursor->index++;
	cursor->buffer = (__u64)vector.iov_base;
	cursor->available = vector.iov_len;
	return 0;
}

/* One step: a piece of one buffer into the scratch, and a full scratch into the ring. */
static long gather_step(__u32 step, struct gather *gather)
{
	struct scratch *scratch = gather->scratch;
	struct cursor *cursor = &scratch->cursor;
	__u32 filled, take;

	if (!gather->wanted)
		return 1;
	if (!cursor->available)
		return next_buffer(gather);
	if (gather->filled >= PIECE_MAX)
		flush(gather, gather->filled);
	filled = gather->filled;
	barrier_var(filled); /* as above */
	take = gather->wanted;
	if (take > cursor->available)
		take = cursor->available;
	if (filled >= PIECE_MAX)
		return 1;
	if (take > PIECE_MAX - filled)
		take = PIECE_MAX - filled;
	asm volatile("" : "+r"(take));
	if (take > PIECE_MAX)
		return 1;
	if (bpf_probe_read_user(&scratch->bytes[filled], take, (void *)cursor->buffer)) {
		gather->count->unreadable++;
		return 1;
	}
	gather->wanted -= take;
	gather->rest -= take;
	gather->budget -= take;
	if (gather->half->state == IN_HEAD)
		body_found(gather, scan(gather->slot, filled, take), filled, take);
	gather->filled = filled + take;
	cursor->buffer += take;
	cursor->available -= take;
	return 0;
}

/* HTTP/2: a frame's header is there. */
static __always_inline void begin_frame(struct half *half, __u32 body)
{
	__u32 length = half->header[0] << 16 | half->header[1] << 8 | half->header[2];
	__u32 wanted = length;

	if (half->header[3] != 0) {
		if (length > FRAME_ABSURD) {
			/* These are no frames: all is copied, for userspace to make something of. */
			half->framed = 0;
			wanted = -1;
		}
	} else {
		if (body < FRAME_BODY)
			body = FRAME_BODY;
		if (wanted > body)
			wanted = body;
	}
	half->frame_wanted = wanted;
	half->frame_rest = length - wanted;
}

/* HTTP/2: so much passed that could not be looked at. */
static __always_inline void pass_unseen(struct half *half, __u32 length)
{
	__u32 wanted = half->frame_wanted;

	if (wanted > length)
		wanted = length;
	half->frame_wanted -= wanted;
	length -= wanted;
	if (length > half->frame_rest) {
		half->framed = 0;
		return;
	}
	half->frame_rest -= length;
}

/* One step of HTTP/2: a frame's header, or what is wanted of the frame, into the scratch, or past what is not. */
static long frame_step(__u32 step, struct gather *gather)
{
	struct scratch *scratch = gather->scratch;
	struct cursor *cursor = &scratch->cursor;
	struct half *half = gather->half;
	__u32 filled, take, have;

	if (!gather->rest)
		return 1;
	if (!cursor->available)
		return next_buffer(gather);
	take = gather->rest;
	if (take > cursor->available)
		take = cursor->available;
	if (!half->frame_wanted && half->frame_rest) {
		if (take > half->frame_rest)
			take = half->frame_rest;
		half->frame_rest -= take;
		cursor->gap += take;
		gather->rest -= take;
		cursor->buffer += take;
		cursor->available -= take;
		return 0;
	}
	if (cursor->gap || gather->filled >= PIECE_MAX) {
		flush(gather, gather->filled + cursor->gap);
		cursor->gap = 0;
	}
	have = half->header_have & 15;
	if (half->frame_wanted) {
		if (take > half->frame_wanted)
			take = half->frame_wanted;
	} else if (take > FRAME_HEADER - have) {
		take = FRAME_HEADER - have;
	}
	filled = gather->filled;
	barrier_var(filled); /* as above */
	if (filled >= PIECE_MAX)
		return 1;
	if (take > PIECE_MAX - filled)
		take = PIECE_MAX - filled;
	asm volatile("" : "+r"(take));
	if (take > PIECE_MAX)
		return 1;
	if (bpf_probe_read_user(&scratch->bytes[filled], take, (void *)cursor->buffer)) {
		gather->count->unreadable++;
		return 1;
	}
	if (half->frame_wanted) {
		half->frame_wanted -= take;
	} else {
		__u32 part = take & 15;

		barrier_var(have);
		have &= 15;
		barrier_var(part);
		part &= 15;
		if (bpf_probe_read_user(&half->header[have], part, (void *)cursor->buffer))
			return 1;
		have += part;
		half->header_have = have;
		if (have >= FRAME_HEADER) {
			half->header_have = 0;
			begin_frame(half, cursor->body);
		}
	}
	gather->filled = filled + take;
	gather->rest -= take;
	cursor->buffer += take;
	cursor->available -= take;
	return 0;
}

/* Reads what the caller's bytes begin with into the scratch, at most `most` of it. Returns how much that is;
 * 0 if it cannot be read. On the way `source` comes to have a buffer, and the vectors behind it. */
static __always_inline __u32 read_first(struct source *source, struct scratch *scratch,
					struct nc_http_counters *count, __u32 length, __u32 most,
					__u64 *available)
{
	__u32 take = most;

	*available = length;
	if (!source->buffer) {
		struct iovec vector;

		/* Some begin with an empty one. */
		for (int i = 0; i < 2 && source->iovs; i++) {
			if (bpf_probe_read_user(&vector, sizeof(vector), (void *)source->iov)) {
				count->unreadable++;
				return 0;
			}
			source->iov += sizeof(vector);
			source->iovs--;
			source->buffer = (__u64)vector.iov_base;
			*available = vector.iov_len;
			if (vector.iov_len)
				break;
		}
	}
	if (take > *available)
		take = *available;
	if (take > length)
		take = length;
	barrier_var(take); /* as above */
	if (take > PIECE_FIRST)
		return 0;
	if (bpf_probe_read_user(scratch->bytes, take, (void *)source->buffer)) {
		count->unreadable++;
		return 0;
	}
	return take;
}

static __always_inline int on_bytes(struct sock *sk, int moved, int flags, __u32 direction,
				    __u32 slot)
{
	struct nc_http_counters *count;
	struct nc_http_config *cfg;
	struct task_struct *task;
	struct scratch *scratch;
	enum nc_http_start start = NC_HTTP_START_NO;
	struct tcp_sock *tcp;
	struct gather gather;
	struct conn *conn;
	struct half *half;
	__u32 zero = 0, nothing = 0, sequence, length, pid, wanted, most = FIRST_LOOK, read = 0;
	__u64 position;
	bool readable, request, preface = false, http2 = false;

	if (!sk || flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
		return 0;
	if (moved < 0 && !several_seen)
		return 0;
	if (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6 &&
	    !(is_unix(sk) && sk->sk_type == SOCK_STREAM))
		return 0;
	count = bpf_map_lookup_elem(&counters, &zero);
	if (!count)
		return 0;
	conn = bpf_sk_storage_get(&conns, sk, 0, 0);
	if (moved < 0) {
		if (conn)
			conn->half[direction].message = 0;
		return 0;
	}
	if (beside_tls && !conn && bpf_sk_storage_get(&tls_sockets, sk, 0, 0))
		return 0;
	/* A local client whose server is seen as well: half of all calls there are on loopback. */
	if (conn && conn->flags & CONN_SKIP) {
		count->seen++;
		count->skipped++;
		if (!moved && direction == NC_HTTP_RECEIVED && is_unix(sk))
			end_of_peer(sk, count);
		return 0;
	}
	tcp = tcp_of(sk);
	cfg = bpf_map_lookup_elem(&settings, &zero);
	scratch = bpf_map_lookup_elem(&scratches, &slot);
	if (!(tcp || is_unix(sk)) || !cfg || !scratch)
		return 0;
	count->seen++;
	if (cfg->flags & NC_HTTP_PAUSED)
		return 0;
	task = bpf_get_current_task_btf();
	if (!selected(cfg, sk, task))
		return 0;
	count->selected++;
	length = moved;
	if (!length && !conn)
		return 0;

	gather.source = (struct source){ .length = length };
	if (length) {
		if (conn) {
			half = &conn->half[direction];
			gather.source.messages = half->messages;
			gather.source.thread = half->thread;
			gather.source.message = half->message;
			if (conn->turn != direction) {
				conn->turn = direction;
				conn->heads = 0;
				conn->flags |= CONN_TURNED;
				half->state = IN_HEAD;
				half->split = 0;
				half->budget = cfg->turn_bytes;
			}
			if (conn->flags & CONN_HTTP && half->state == IN_HEAD)
				most = PIECE_FIRST;
		}
		readable = !(flags & MSG_TRUNC && direction == NC_HTTP_RECEIVED) &&
			   (find_usual_source(&gather.source, task) || find_source(&gather.source));
		if (readable)
			read = read_first(&gather.source, scratch, count, length, most,
					  &scratch->cursor.available);
		if (read) {
			__u32 first = *(__u32 *)scratch->bytes;

			if (read >= 4 && first == NC_FOUR('G', 'E', 'T', ' '))
				start = NC_HTTP_START_REQUEST;
			else if (read >= 4 && first == NC_FOUR('H', 'T', 'T', 'P'))
				start = NC_HTTP_START_RESPONSE;
			else
				start = look_at_start(first, read < 4 ? read : 4);
			http2 = read >= 4 && first == NC_FOUR('P', 'R', 'I', ' ');
			/* Nowhere else are frames followed: a body may begin with these bytes, too. */
			preface = http2 && read >= FIRST_LOOK &&
				  !(conn && conn->flags & CONN_HTTP) &&
				  look_at_preface(*(__u64 *)scratch->bytes);
			/* In a connection of which nothing is known yet, or not who asks. */
			if (start == NC_HTTP_START_NO && read >= FIRST_LOOK &&
			    nc_http2_maybe(first) &&
			    (!conn || (conn->flags & CONN_HTTP2 && !conn->role))) {
				start = look_at_frame(*(__u64 *)scratch->bytes,
						      *(__u16 *)&scratch->bytes[8]);
				http2 = start != NC_HTTP_START_NO;
			}
		}
		if (!conn) {
			/* Whatever is no HTTP leaves no trace. */
			if (start == NC_HTTP_START_NO && !gather.source.several) {
				count->other++;
				return 0;
			}
			conn = bpf_sk_storage_get(&conns, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
			if (!conn) {
				count->no_memory++;
				return 0;
			}
			conn->turn = direction;
		}
	}
	/* Which cannot be; but 6.1's verifier forgets what is known of a length that was on the stack. */
	barrier_var(conn);
	if (!conn)
		return 0;
	half = &conn->half[direction];
	sequence = half->sequence + length;
	if (tcp)
		sequence = passed_to(sk, tcp, direction);
	if (!half->known) {
		begin_half(half, sequence - length);
		begin_half(&conn->half[!direction], tcp ? passed_to(sk, tcp, !direction) : 0);
	}
	if ((__s32)(sequence - half->sequence) > (__s32)length) {
		if (follow_frames && half->framed)
			pass_unseen(half, sequence - half->sequence - length);
		half->position += sequence - half->sequence - length;
	}
	half->sequence = sequence;
	position = half->position;
	half->position += length;
	pid = task->tgid;
	if (!length) {
		half->message = 0;
		if (direction == NC_HTTP_SENT || !(conn->flags & CONN_HTTP))
			return 0;
		scratch->record = (struct nc_http_record){
			.kind = NC_HTTP_END,
			.direction = direction,
			.pid = pid,
			.time_ns = bpf_ktime_get_ns(),
			.cookie = conn->cookie,
			.position = position,
		};
		submit(count, &scratch->record, sizeof(scratch->record));
		if (is_unix(sk))
			end_of_peer(sk, count);
		return 0;
	}
	if (gather.source.several) {
		half->messages = gather.source.messages;
		half->thread = gather.source.thread;
		half->message = gather.source.message;
	}
	if (!(conn->flags & CONN_HTTP)) {
		if (start == NC_HTTP_START_NO) {
			count->other++;
			return 0;
		}
		conn->flags |= CONN_HTTP;
		/* What a server said before is frames, too, which nobody needs. */
		if (follow_frames)
			conn->half[!direction].framed = preface;
		conn->cookie = bpf_get_socket_cookie(sk);
		half->state = IN_HEAD;
		half->split = 0;
		half->budget = cfg->turn_bytes;
	}
	if (!conn->role && start >= NC_HTTP_START_REQUEST) {
		conn->role = (start == NC_HTTP_START_REQUEST) == (direction == NC_HTTP_SENT) ?
				     NC_HTTP_CLIENT :
				     NC_HTTP_SERVER;
		conn->flags &= ~CONN_OPENED;
		/* The server is seen as well, unless it is selected away. */
		if (conn->role == NC_HTTP_CLIENT && !(cfg->flags & NC_HTTP_BOTH_SIDES) &&
		    !(cfg->select & ~(NC_HTTP_SELECT_PORT | NC_HTTP_SELECT_NETNS)) &&
		    local_peer(sk))
			conn->flags |= CONN_SKIP;
	}
	if (conn->pid != pid || !(conn->flags & CONN_OPENED)) {
		conn->pid = pid;
		open(sk, conn, task, count, slot);
	}
	if (conn->flags & CONN_SKIP) {
		count->skipped++;
		return 0;
	}

	request = (conn->role == NC_HTTP_SERVER) == (direction == NC_HTTP_RECEIVED);
	/* Needed up to the end: if the verifier knew them, it would walk all that follows for each value. */
	nothing = unknown_zero;
	read |= nothing;
	most |= nothing;
	/* An answer goes on though the other side spoke in between: it asked for the next one already. */
	if (conn->flags & CONN_TURNED && !request && read && start < NC_HTTP_START_RESPONSE)
		conn->flags |= CONN_PIPELINED;
	conn->flags &= ~CONN_TURNED;
	/* Within chunks, what looks like a message is none. */
	if (start >= NC_HTTP_START_REQUEST && half->state != IN_CHUNKS) {
		half->state = IN_HEAD;
		half->split = 0;
		half->budget = cfg->turn_bytes;
		if (request && conn->heads)
			conn->flags |= CONN_PIPELINED;
		conn->heads |= request;
	}
	if (http2 && (request || !conn->role))
		conn->flags |= CONN_HTTP2;
	if (follow_frames && preface) {
		half->framed = 1;
		half->frame_wanted = PREFACE;
	}
	/* As long as it is not known where frames begin, it is copied whole. */
	if (conn->flags & CONN_HTTP2)
		half->state = IN_CHUNKS;
	/* Where a message ends is in the bytes, not in their number. */
	if (half->state == IN_CHUNKS || conn->flags & CONN_PIPELINED)
		half->budget = -1;
	wanted = read ? half->budget : 0;
	if (wanted > length)
		wanted = length;

	scratch->record = (struct nc_http_record){
		.kind = NC_HTTP_DATA,
		.direction = direction,
		.pid = pid,
		.time_ns = bpf_ktime_get_ns(),
		.cookie = conn->cookie,
		.position = position,
		.answered = conn->half[!direction].position,
	};
	gather.filled = nothing;
	scratch->cursor.index = nothing;
	scratch->cursor.pipelined = nothing;
	scratch->cursor.gap = nothing;
	gather.scratch = scratch;
	gather.slot = slot;
	gather.count = count;
	gather.half = half;
	gather.wanted = wanted;
	scratch->cursor.left = length;
	gather.rest = length;
	scratch->cursor.request = request | nothing;
	scratch->cursor.response = !request && !(conn->flags & CONN_PIPELINED);
	scratch->cursor.body = cfg->body_bytes;
	gather.budget = half->budget;
	scratch->cursor.buffer = gather.source.buffer;
	/* What was read is the first piece, if a head ends in it or nothing is left to be read. */
	if (wanted && most == PIECE_FIRST && read <= wanted && !(conn->flags & CONN_HTTP2)) {
		__u32 found = half->state == IN_HEAD ? scan_first(slot, read) : 0;

		if (found || read == wanted) {
			gather.filled = read;
			gather.wanted -= read;
			gather.rest -= read;
			gather.budget -= read;
			scratch->cursor.buffer += read;
			scratch->cursor.available -= read;
			if (half->state == IN_HEAD)
				body_found(&gather, found, nothing, read);
		}
	}
	if (follow_frames && half->framed) {
		if (read)
			bpf_loop(PIECES, frame_step, &gather, 0);
		if (gather.rest)
			pass_unseen(half, gather.rest);
	} else if (gather.wanted) {
		bpf_loop(PIECES, gather_step, &gather, 0);
	}
	if (scratch->cursor.pipelined)
		conn->flags |= CONN_PIPELINED;
	half->budget = gather.budget;
	/* Of a head, or of what may have framing in it. */
	if (read && gather.rest && !gather.budget &&
	    (scratch->cursor.request || half->state != IN_BODY))
		count->truncated++;
	if (scratch->cursor.left)
		flush(&gather, scratch->cursor.left);
	return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(http_send, struct sock *sk, int ret, int flags)
{
	return on_bytes(sk, ret, 0, NC_HTTP_SENT, 0);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(http_recv, struct sock *sk, int ret, int flags)
{
	return on_bytes(sk, ret, flags, NC_HTTP_RECEIVED, 1);
}

/* Kernels without those tracepoints: 6.2 and older. */
SEC("fexit/inet_sendmsg")
int BPF_PROG(http_send4, struct socket *sock, struct msghdr *msg, size_t size, int ret)
{
	return on_bytes(sock->sk, ret, 0, NC_HTTP_SENT, 2);
}

SEC("fexit/inet6_sendmsg")
int BPF_PROG(http_send6, struct socket *sock, struct msghdr *msg, size_t size, int ret)
{
	return on_bytes(sock->sk, ret, 0, NC_HTTP_SENT, 3);
}

SEC("fexit/inet_recvmsg")
int BPF_PROG(http_recv4, struct socket *sock, struct msghdr *msg, size_t size, int flags, int ret)
{
	return on_bytes(sock->sk, ret, flags, NC_HTTP_RECEIVED, 4);
}

SEC("fexit/inet6_recvmsg")
int BPF_PROG(http_recv6, struct socket *sock, struct msghdr *msg, size_t size, int flags, int ret)
{
	return on_bytes(sock->sk, ret, flags, NC_HTTP_RECEIVED, 5);
}

SEC("fexit/unix_stream_sendmsg")
int BPF_PROG(http_send_unix, struct socket *sock, struct msghdr *msg, size_t size, int ret)
{
	return on_bytes(sock->sk, ret, 0, NC_HTTP_SENT, 7);
}

SEC("fexit/unix_stream_recvmsg")
int BPF_PROG(http_recv_unix, struct socket *sock, struct msghdr *msg, size_t size, int flags,
	     int ret)
{
	return on_bytes(sock->sk, ret, flags, NC_HTTP_RECEIVED, 8);
}

/* sendfile and splice there have a way of their own. */
SEC("fexit/inet_sendpage")
int BPF_PROG(http_sendpage, struct socket *sock, struct page *page, int offset, size_t size,
	     int flags, ssize_t ret)
{
	return on_bytes(sock->sk, ret, 0, NC_HTTP_SENT, 6);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(http_state, struct sock *sk, int before, int after)
{
	struct nc_http_record record = {};
	struct nc_http_counters *count;
	struct conn *conn;
	__u32 zero = 0;

	if (after != TCP_CLOSE && after != TCP_FIN_WAIT1 && after != TCP_LAST_ACK)
		return 0;
	conn = bpf_sk_storage_get(&conns, sk, 0, 0);
	count = bpf_map_lookup_elem(&counters, &zero);
	if (!conn || !count ||
	    (conn->flags & (CONN_HTTP | CONN_OPENED)) != (CONN_HTTP | CONN_OPENED))
		return 0;
	record.kind = after == TCP_CLOSE ? NC_HTTP_CLOSE : NC_HTTP_END;
	record.direction = NC_HTTP_SENT;
	record.flags = conn->flags & CONN_SKIP ? NC_HTTP_SKIPPED : 0;
	record.time_ns = bpf_ktime_get_ns();
	record.cookie = conn->cookie;
	record.position = conn->half[NC_HTTP_SENT].position;
	submit(count, &record, sizeof(record));
	return 0;
}
