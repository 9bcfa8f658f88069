// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/profile/stacks.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string_view>
#include <tuple>
#include <utility>

#include <fmt/format.h>

namespace netctl::trace::profile {

namespace {

/// What threads begin with.
constexpr std::array<std::string_view, 13> beginnings{"_start",
                                                      "__libc_start_main",
                                                      "__libc_start_main_impl",
                                                      "__libc_start_call_main",
                                                      "start_thread",
                                                      "clone",
                                                      "__clone",
                                                      "clone3",
                                                      "__clone3",
                                                      "__clone_internal",
                                                      "runtime.goexit",
                                                      "runtime.goexit.abi0",
                                                      "runtime.mstart"};

bool is_libc(const std::string& path) {
    const std::string_view name = std::string_view(path).substr(path.rfind('/') + 1);
    return name.starts_with("libc.so") || name.starts_with("libc-") ||
           name.starts_with("libpthread") || name.starts_with("ld-");
}

/// Distributions leave out the names of the functions of the C library that call main() and the threads' own.
bool begins_here(const Frame& outermost, std::size_t depth) {
    if (!outermost.named)
        return depth > 1 && is_libc(outermost.file);
    return std::find(beginnings.begin(), beginnings.end(), outermost.function) != beginnings.end();
}

/// How many of a wait's frames, outermost first, are left without those at its end that all waits have: of taking the stack, and of
/// giving up the CPU. The kernel's begin at `begin`.
std::size_t without_switch(const std::vector<Frame>& frames, const std::vector<std::uint32_t>& ids,
                           std::size_t begin) {
    for (std::size_t i = begin; i < ids.size(); ++i) {
        const std::string_view name = frames[ids[i]].function;
        for (const char* tracer : {"__traceiter_", "bpf_trace_run", "bpf_prog_", "__bpf_trace_"})
            if (name.starts_with(tracer)) {
                const auto is_schedule = [&](std::uint32_t id) {
                    const std::string_view caller = frames[id].function;
                    return caller.starts_with("schedule") || caller == "__schedule" ||
                           caller == "io_schedule";
                };
                while (i > begin && is_schedule(ids[i - 1]))
                    --i;
                return i;
            }
    }
    return ids.size();
}

} // namespace

void StackCounts::add(const Sample& sample) {
    const nc_profile_sample& head = sample.head;
    std::string key;
    const auto append = [&key](const void* bytes, std::size_t size) {
        key.append(static_cast<const char*>(bytes), size);
    };
    append(&head.cgroup_id, sizeof head.cgroup_id);
    append(&head.started, sizeof head.started);
    append(&head.program, sizeof head.program);
    append(&head.owner, sizeof head.owner);
    append(&head.kernel_bytes, sizeof head.kernel_bytes);
    append(sample.kernel.data(), sample.kernel.size_bytes());
    append(sample.user.data(), sample.user.size_bytes());
    auto known = counted_.find(key);
    if (known == counted_.end()) {
        if (counted_.size() >= most_stacks) {
            ++no_room_;
            return;
        }
        Counted one;
        one.comm.assign(head.owner.comm, strnlen(head.owner.comm, sizeof head.owner.comm));
        one.pid = head.owner.pid;
        one.cgroup_id = head.cgroup_id;
        one.kernel_thread = head.kernel_thread != 0;
        places_.add_kernel(sample.kernel, one.kernel);
        one.gone =
            !places_.add_user({head.owner.pid, head.started, head.program}, sample.user, one.user);
        known = counted_.emplace(std::move(key), std::move(one)).first;
    }
    ++known->second.samples;
    known->second.amount += head.amount;
}

Stacks StackCounts::finish() {
    Stacks stacks;
    stacks.no_room = no_room_;
    std::map<Frame, std::uint32_t> frames;
    std::unordered_map<Places::Id, std::uint32_t> named;
    const auto frame_of = [&](Places::Id id) {
        const auto [known, first] = named.try_emplace(id, 0);
        if (first) {
            Frame frame = places_.name(id);
            const auto [same, fresh] = frames.try_emplace(
                std::move(frame), static_cast<std::uint32_t>(stacks.frames.size()));
            if (fresh)
                stacks.frames.push_back(same->first);
            known->second = same->second;
        }
        return known->second;
    };
    std::map<std::tuple<std::string, std::uint32_t, std::uint64_t, std::vector<std::uint32_t>>,
             std::size_t>
        merged;
    for (auto& [key, counted] : counted_) {
        Stack stack;
        stack.pid = counted.pid;
        stack.comm = std::move(counted.comm);
        stack.cgroup_id = counted.cgroup_id;
        stack.samples = counted.samples;
        stack.amount = counted.amount;
        std::for_each(counted.user.rbegin(), counted.user.rend(),
                      [&](Places::Id id) { stack.frames.push_back(frame_of(id)); });
        const std::size_t user = stack.frames.size();
        std::for_each(counted.kernel.rbegin(), counted.kernel.rend(),
                      [&](Places::Id id) { stack.frames.push_back(frame_of(id)); });
        stack.frames.resize(without_switch(stacks.frames, stack.frames, user));
        stack.ends_early = !counted.kernel_thread &&
                           (user == 0 || !begins_here(stacks.frames[stack.frames[0]], user));
        stacks.samples += stack.samples;
        stacks.amount += stack.amount;
        stacks.gone += counted.gone ? stack.samples : 0;
        stacks.ends_early += stack.ends_early ? stack.samples : 0;
        const auto [same, fresh] = merged.try_emplace(
            {stack.comm, stack.pid, stack.cgroup_id, stack.frames}, stacks.stacks.size());
        if (fresh)
            stacks.stacks.push_back(std::move(stack));
        else {
            stacks.stacks[same->second].samples += stack.samples;
            stacks.stacks[same->second].amount += stack.amount;
        }
    }
    counted_.clear();
    std::sort(stacks.stacks.begin(), stacks.stacks.end(), [](const Stack& a, const Stack& b) {
        return std::tie(b.amount, a.comm, a.pid, a.frames) <
               std::tie(a.amount, b.comm, b.pid, b.frames);
    });
    return stacks;
}

std::vector<Function> Stacks::functions() const {
    std::vector<Function> all(frames.size());
    for (std::uint32_t i = 0; i < all.size(); ++i)
        all[i].frame = i;
    for (const Stack& stack : stacks) {
        if (stack.frames.empty())
            continue;
        all[stack.frames.back()].self += stack.amount;
        std::vector<std::uint32_t> each = stack.frames; // once, however often it calls itself
        std::sort(each.begin(), each.end());
        each.erase(std::unique(each.begin(), each.end()), each.end());
        for (const std::uint32_t frame : each)
            all[frame].total += stack.amount;
    }
    std::erase_if(all, [](const Function& one) { return one.total == 0; });
    std::sort(all.begin(), all.end(), [this](const Function& a, const Function& b) {
        return std::tie(b.self, b.total, frames[a.frame]) <
               std::tie(a.self, a.total, frames[b.frame]);
    });
    return all;
}

std::string folded_name(const Frame& frame) {
    std::string name = frame.function;
    std::replace(name.begin(), name.end(), ';', ':'); // it is what keeps frames apart
    name += frame.kind == Frame::Kind::kernel     ? "_[k]"
            : frame.kind == Frame::Kind::compiled ? "_[j]"
                                                  : "";
    return name;
}

Text folded(const Stacks& stacks) {
    std::map<std::string, std::uint64_t> lines;
    for (const Stack& stack : stacks.stacks) {
        std::string line = stack.comm;
        std::replace(line.begin(), line.end(), ';', ':');
        for (const std::uint32_t frame : stack.frames)
            line += ";" + folded_name(stacks.frames[frame]);
        lines[line] += stack.amount;
    }
    Text text;
    for (const auto& [line, amount] : lines)
        text += Text::format("{} {}\n", line, amount);
    return text;
}

} // namespace netctl::trace::profile
