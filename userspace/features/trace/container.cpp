// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/container.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include <nlohmann/json.hpp>

namespace netctl::trace {

namespace {

using nlohmann::json;

/// Files of runtimes are some kilobytes; a store of a thousand containers is a megabyte or two.
constexpr std::uintmax_t file_limit = 16 * 1024 * 1024;

bool is_id(std::string_view text) {
    return text.size() == 64 &&
           text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// What is between `prefix` and `suffix`; empty if it is not of that form.
std::string_view between(std::string_view text, std::string_view prefix, std::string_view suffix) {
    if (text.size() <= prefix.size() + suffix.size() || !text.starts_with(prefix) ||
        !text.ends_with(suffix))
        return {};
    text.remove_prefix(prefix.size());
    text.remove_suffix(suffix.size());
    return text;
}

/// systemd writes what a unit's name must not have as \xNN.
std::string unescape(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto digit = [&](std::size_t at) {
            return at < text.size() ? std::string_view("0123456789abcdef").find(text[at])
                                    : std::string_view::npos;
        };
        const std::size_t high = digit(i + 2), low = digit(i + 3);
        if (text.substr(i, 2) == "\\x" && high != std::string_view::npos &&
            low != std::string_view::npos) {
            out += static_cast<char>(high * 16 + low);
            i += 3;
        } else {
            out += text[i];
        }
    }
    return out;
}

std::optional<Container> container_of_part(std::string_view parent, std::string_view part) {
    struct Scope {
        std::string_view prefix;
        const char* runtime;
    };
    static constexpr Scope scopes[] = {{"docker-", "docker"},
                                       {"libpod-", "podman"},
                                       {"cri-containerd-", "containerd"},
                                       {"nerdctl-", "containerd"},
                                       {"crio-", "crio"}};
    for (const Scope& scope : scopes)
        for (const std::string_view suffix : {".scope", ""})
            if (const auto id = between(part, scope.prefix, suffix); is_id(id))
                return Container{scope.runtime, std::string(id), {}, {}};
    if (is_id(part))
        return Container{parent == "docker" ? "docker" : "containerd", std::string(part), {}, {}};
    auto name = between(part, "lxc.payload.", "");
    if (name.empty() && parent == "lxc")
        name = part;
    if (!name.empty())
        return Container{"lxc", std::string(name), std::string(name), {}};
    name = between(part, "systemd-nspawn@", ".service");
    if (name.empty() && parent == "machine.slice")
        name = between(part, "machine-", ".scope");
    if (name.empty())
        return std::nullopt;
    return Container{"nspawn", unescape(name), unescape(name), {}};
}

json read_json(const std::filesystem::path& path) {
    std::error_code failure;
    if (!std::filesystem::is_regular_file(path, failure) ||
        std::filesystem::file_size(path, failure) > file_limit || failure)
        return {};
    std::ifstream file(path);
    return json::parse(std::string(std::istreambuf_iterator<char>(file), {}), nullptr, false);
}

/// The text at a path through objects; empty if there is none.
std::string text_at(const json& document, std::initializer_list<const char*> members) {
    const json* at = &document;
    for (const char* member : members) {
        const auto found = at->is_object() ? at->find(member) : at->end();
        if (!at->is_object() || found == at->end())
            return {};
        at = &*found;
    }
    return at->is_string() ? at->get<std::string>() : std::string();
}

void name_docker(Container& container, const std::filesystem::path& root) {
    const json config =
        read_json(root / "var/lib/docker/containers" / container.id / "config.v2.json");
    container.name = text_at(config, {"Name"});
    if (container.name.starts_with('/'))
        container.name.erase(0, 1);
    container.image = text_at(config, {"Config", "Image"});
}

/// The store that Podman and CRI-O have in common (containers/storage).
void name_stored(Container& container, const std::filesystem::path& root) {
    const json list =
        read_json(root / "var/lib/containers/storage/overlay-containers/containers.json");
    if (!list.is_array())
        return;
    for (const json& one : list) {
        if (text_at(one, {"id"}) != container.id)
            continue;
        if (const auto names = one.find("names"); names != one.end() && names->is_array() &&
                                                  !names->empty() && names->front().is_string())
            container.name = names->front().get<std::string>();
        const json more = json::parse(text_at(one, {"metadata"}), nullptr, false);
        container.image = text_at(more, {"image-name"});
        return;
    }
}

void name_containerd(Container& container, const std::filesystem::path& root) {
    std::error_code failure;
    const auto tasks = root / "run/containerd/io.containerd.runtime.v2.task";
    for (const auto& space : std::filesystem::directory_iterator(tasks, failure)) {
        const json config = read_json(space.path() / container.id / "config.json");
        if (!config.is_object())
            continue;
        container.name = text_at(config, {"annotations", "io.kubernetes.cri.container-name"});
        if (container.name.empty())
            container.name = text_at(config, {"annotations", "nerdctl/name"});
        container.image = text_at(config, {"annotations", "io.kubernetes.cri.image-name"});
        return;
    }
}

} // namespace

std::string Container::label() const {
    return name.empty() ? id.substr(0, 12) : name;
}

bool Container::is_called(std::string_view wanted) const {
    constexpr std::size_t shortest = 8;
    return wanted == name || wanted == image || wanted == id ||
           (wanted.size() >= shortest && is_id(id) && id.starts_with(wanted));
}

std::optional<Container> container_of(std::string_view cgroup) {
    std::optional<Container> found;
    std::string_view parent;
    while (!cgroup.empty()) {
        const std::size_t slash = std::min(cgroup.find('/'), cgroup.size());
        const std::string_view part = cgroup.substr(0, slash);
        if (auto container = container_of_part(parent, part))
            found = std::move(container);
        parent = part;
        cgroup.remove_prefix(std::min(slash + 1, cgroup.size()));
    }
    return found;
}

void name_container(Container& container, const std::string& root) {
    if (container.runtime == "docker")
        name_docker(container, root);
    else if (container.runtime == "podman" || container.runtime == "crio")
        name_stored(container, root);
    else if (container.runtime == "containerd")
        name_containerd(container, root);
}

std::shared_ptr<const Container> Containers::of(std::uint64_t cgroup_id) {
    const auto [known, first] = known_.try_emplace(cgroup_id);
    if (first) {
        const auto path = cgroup_name_(cgroup_id);
        if (auto container = path ? container_of(*path) : std::nullopt) {
            name_container(*container, root_);
            known->second = std::make_shared<Container>(std::move(*container));
        }
    }
    return known->second;
}

} // namespace netctl::trace
