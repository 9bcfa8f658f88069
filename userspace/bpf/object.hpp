// SPDX-License-Identifier: GPL-2.0-only
//
// A BPF object before and after it is loaded, programs, and links.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bpf/map.hpp"
#include "bpf/specialize.hpp"
#include "core/fd.hpp"
#include "core/result.hpp"

struct bpf_object;
struct bpf_object_skeleton;
struct bpf_map;
struct bpf_program;

namespace netctl::bpf {

/// Sends libbpf's messages to the debug log; what it says while an operation fails can be fetched
/// with `libbpf_complaint()`.
void capture_libbpf_messages();
/// The last warnings of libbpf, oldest first, and forgets them.
std::string libbpf_complaint();

struct ProgramInfo {
    std::uint32_t id = 0;
    std::uint32_t type = 0;
    std::string name;
    std::vector<std::uint32_t> map_ids;
    std::uint64_t recursions = 0; ///< runs left out, as the program was under way on that CPU
};

/// A loaded program.
class Program {
  public:
    Program() = default;
    explicit Program(Fd fd) : fd_(std::move(fd)) {}
    static Result<Program> open_id(std::uint32_t id);

    int fd() const { return fd_.get(); }
    explicit operator bool() const { return static_cast<bool>(fd_); }
    Result<ProgramInfo> info() const;
    /// The program's map of this name, bound ones included.
    Result<RawMap> map(const std::string& name) const;
    /// Ties a map's life to the program's, so that whoever finds the program finds the map.
    Result<> bind(const RawMap& map) const;

  private:
    Fd fd_;
};

struct LinkInfo {
    std::uint32_t id = 0;
    std::uint32_t program_id = 0;
    std::uint32_t ifindex = 0; ///< XDP and tcx links; 0: the interface is gone
    std::uint64_t cgroup = 0;  ///< links to a cgroup: its id; 0: it is gone
};

/// An attachment, alive while this or its pin is.
class Link {
  public:
    Link() = default;
    explicit Link(Fd fd) : fd_(std::move(fd)) {}

    int fd() const { return fd_.get(); }
    explicit operator bool() const { return static_cast<bool>(fd_); }
    Result<LinkInfo> info() const;
    /// Puts another program in the place of the present one, atomically.
    Result<> update(const Program& program) const;

  private:
    Fd fd_;
};

/// The link whose program uses this map: for a pin that cannot be opened, on a file system that is mounted
/// read-only, when the map is pinned beside it. Takes CAP_SYS_ADMIN.
Result<Link> find_link_with(const RawMap& map);

/// View of a skeleton's object by name, before and after loading. The skeleton owns the object.
class Object {
  public:
    explicit Object(bpf_object* object) : object_(object) {}

    /// Cuts the array `.bss.NAME` to the table's size and sets its content. Before loading.
    Result<> set_table(const std::string& name, std::span<const std::byte> bytes) const;
    /// Sets `const volatile __u32 NAME` or `NAME[n]` in rodata. Before loading.
    Result<> set_constant(const std::string& name, std::span<const std::uint32_t> values) const;
    /// Sets any rodata variable by its bytes. Before loading.
    Result<> set_rodata(const std::string& name, std::span<const std::byte> bytes) const;
    Result<> set_max_entries(const std::string& map, std::uint32_t entries) const;
    /// Uses an existing map in the place of one of the object's. Before loading.
    Result<> reuse(const std::string& map, const RawMap& existing) const;
    /// Makes the map or leaves it out. Before loading.
    Result<> set_autocreate(const std::string& map, bool create) const;
    /// Loads the program or leaves it out. Before loading.
    Result<> set_autoload(const std::string& program, bool load) const;
    /// Loads these programs and leaves out all others. Before loading.
    Result<> load_only(std::span<const std::string> programs) const;
    /// The function of the kernel that a program of kind fentry or fexit is for. Before loading.
    Result<> set_target(const std::string& program, const std::string& function) const;
    /// Verifies and loads. The error has the verifier's last words.
    Result<> load() const;
    /// A loaded map, as a handle of one's own.
    Result<RawMap> map(const std::string& name) const;
    /// A loaded program, as a handle of one's own.
    Result<Program> program(const std::string& name) const;
    /// Attaches a loaded program where its section says; for tracepoints with types, functions of the
    /// kernel, and what else has a descriptor as its link.
    Result<Link> attach(const std::string& program) const;
    /// The same of a program with a target, which is told the `cookie`.
    Result<Link> attach_to_target(const std::string& program, std::uint64_t cookie) const;

  private:
    Result<bpf_program*> find_program(const std::string& name) const;
    Result<bpf_map*> find(const std::string& name) const;
    bpf_object* object_;
};

/// Owns a skeleton made by `bpftool gen skeleton`, S having open() and destroy().
template <class S> class Skeleton {
  public:
    static Result<Skeleton> open() {
        specialize_on_load();
        S* skeleton = S::open(nullptr);
        if (!skeleton)
            return Error::system(errno, "cannot open a BPF object", libbpf_complaint());
        return Skeleton(skeleton);
    }
    S* operator->() const { return skeleton_.get(); }
    Object object() const { return Object(skeleton_->obj); }

  private:
    struct Destroy {
        void operator()(S* skeleton) const { S::destroy(skeleton); }
    };
    explicit Skeleton(S* skeleton) : skeleton_(skeleton) {}
    std::unique_ptr<S, Destroy> skeleton_;
};

/// An object, whichever skeleton it is of, and what keeps it.
struct OwnedObject {
    std::shared_ptr<const void> skeleton;
    Object object;
};

template <class S> Result<OwnedObject> open_object() {
    auto skeleton = std::make_shared<const Skeleton<S>>(NETCTL_TRY(Skeleton<S>::open()));
    const Object object = skeleton->object();
    return OwnedObject{std::move(skeleton), object};
}

} // namespace netctl::bpf
