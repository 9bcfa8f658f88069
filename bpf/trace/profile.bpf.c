// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where threads are: their stacks as a clock samples them while they run, or as they begin to wait, with how long they did.
 */
#include <vmlinux.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include <netctl/abi/trace_profile.h>
#include <netctl/lib/trace_task.h>

char LICENSE[] SEC("license") = "GPL";

#define SIDE_BYTES (8 * NC_PROFILE_FRAMES)
#define TASK_DEAD 0x00000080

/* Larger than a stack of BPF may be. Neither program is interrupted by itself. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_profile_stack);
} scratch SEC(".maps");

/* Made beforehand: a switch holds the CPU's run queue, where nothing may wait for memory. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NC_PROFILE_WAITING);
	__type(key, __u32);
	__type(value, struct nc_profile_stack);
} waiting SEC(".maps");

static __always_inline __u64 no_more_than(__u64 value, __u64 most)
{
	asm volatile("" : "+r"(value)); /* the check is for the verifier */
	return value > most ? most : value;
}

static __always_inline struct nc_profile_stack *take(void *ctx, struct task_struct *task,
						     __u64 amount)
{
	__u32 zero = 0;
	struct nc_profile_stack *stack = bpf_map_lookup_elem(&scratch, &zero);
	struct nc_profile_sample *sample;
	long kernel, user = 0;

	if (!stack)
		return NULL;
	sample = &stack->sample;
	sample->amount = amount;
	sample->cgroup_id = bpf_get_current_cgroup_id();
	sample->started = task->group_leader->start_time;
	sample->program = task->self_exec_id;
	sample->tid = task->pid;
	sample->owner.pid = task->tgid;
	bpf_probe_read_kernel_str(sample->owner.comm, sizeof(sample->owner.comm),
				  task->group_leader->comm);
	sample->kernel_thread = !!(task->flags & PF_KTHREAD);
	kernel = bpf_get_stack(ctx, stack->frames, SIDE_BYTES, 0);
	kernel = kernel < 0 ? 0 : no_more_than(kernel, SIDE_BYTES);
	if (!sample->kernel_thread)
		user = bpf_get_stack(ctx, (void *)stack->frames + kernel, SIDE_BYTES,
				     BPF_F_USER_STACK);
	sample->kernel_bytes = kernel;
	sample->user_bytes = user < 0 ? 0 : user;
	return stack;
}

static __always_inline void tell(struct nc_profile_stack *stack)
{
	__u64 size = sizeof(stack->sample) + stack->sample.kernel_bytes + stack->sample.user_bytes;
	struct nc_trace_counters *count = nc_trace_count();

	if (!count)
		return;
	if (bpf_ringbuf_output(&events, stack, no_more_than(size, sizeof(*stack)),
			       BPF_RB_NO_WAKEUP))
		count->lost++;
	else
		count->sent++;
}

SEC("perf_event")
int on_clock(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct nc_profile_stack *stack;

	if (!task->pid || !nc_task_selected(task))
		return 0;
	stack = take(ctx, task, 1);
	if (stack)
		tell(stack);
	return 0;
}

/* In the context of `prev`; `next` runs behind it. One that is made to yield does not wait for anything but the CPU. */
SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next,
	     unsigned int state)
{
	struct nc_profile_stack *stack;
	__u64 now = bpf_ktime_get_ns();
	__u32 tid = next->pid;

	stack = tid ? bpf_map_lookup_elem(&waiting, &tid) : NULL;
	if (stack) {
		stack->sample.amount = now - stack->sample.amount;
		tell(stack);
		bpf_map_delete_elem(&waiting, &tid);
	}
	tid = prev->pid;
	if (!tid || preempt || !state || state & TASK_DEAD || !nc_task_selected(prev))
		return 0;
	stack = take(ctx, prev, now);
	if (stack && bpf_map_update_elem(&waiting, &tid, stack, BPF_ANY)) {
		struct nc_trace_counters *count = nc_trace_count();

		if (count)
			count->no_memory++;
	}
	return 0;
}
