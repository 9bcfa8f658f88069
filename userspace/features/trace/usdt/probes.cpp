// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/usdt/probes.hpp"

#include <algorithm>
#include <fnmatch.h>
#include <utility>

#include <fmt/format.h>

#include "core/suggest.hpp"
#include "sys/mapping_watch.hpp"

namespace netctl::trace::usdt {

namespace {

/// One probe of many places is as many links.
constexpr std::size_t most_marks = 512;

struct Word {
    std::string provider;
    std::string begin; ///< or the only one
    std::string done;  ///< empty: there is one
};

Result<Word> parse_word(const std::string& text, func::Look look) {
    const std::size_t colon = text.find(':');
    const std::size_t dots = text.find("..", colon == text.npos ? 0 : colon);
    Word word{text.substr(0, colon),
              colon == text.npos
                  ? std::string()
                  : text.substr(colon + 1, dots == text.npos ? dots : dots - colon - 1),
              dots == text.npos ? std::string() : text.substr(dots + 2)};
    if (word.provider.empty() || word.begin.empty() || (dots != text.npos && word.done.empty()))
        return Error::usage(fmt::format("'{}' names no probe", text),
                            "PROVIDER:NAME, as python:line, or PROVIDER:BEGIN..DONE, as "
                            "python:gc__start..gc__done; --list shows which there are");
    if (look == func::Look::times && word.done.empty())
        return Error::usage(fmt::format("'{}' is one probe, which takes no time", text),
                            "PROVIDER:BEGIN..DONE is what lies between two; single ones are "
                            "counted where no pair is named");
    if (look == func::Look::calls && !word.done.empty())
        return Error::usage(fmt::format("'{}' is a pair of probes, and others are single", text),
                            "pairs are timed and single ones counted, not both at once");
    return word;
}

std::string full_name(const sys::UsdtProbe& probe) {
    return probe.provider + ":" + probe.name;
}

} // namespace

Result<> check_site(const ProgramFile& file, const sys::UsdtProbe& probe) {
    if (NETCTL_TRY(func::is_wide_nop(file.file.get(), probe.offset)))
        return Error::failed(
            fmt::format("{} of {} is a no-operation of five bytes, where a probe may overwrite "
                        "what the function keeps below its stack",
                        full_name(probe), file.path),
            "programs that are built with one-byte ones (sys/sdt.h before 5.4) may be watched");
    return {};
}

Result<std::vector<ProbeFile>> find_probe_files(const std::string& name, std::uint32_t pid) {
    std::vector<ProbeFile> files;
    if (name.empty() && pid == 0)
        return Error::usage("which program's probes?", "--file FILE, or --pid PID");
    if (!name.empty()) {
        ProgramFile file = NETCTL_TRY(find_program_file(name, pid));
        auto probes = sys::list_usdt_probes(file.file.get());
        if (!probes)
            return std::move(probes).error().within(Text(file.path));
        if (probes->empty())
            return Error::failed(fmt::format("{} has no probes (section .note.stapsdt)", file.path),
                                 "programs have them that were built so: with --enable-dtrace or "
                                 "the like");
        files.push_back({std::move(file), std::move(*probes)});
        return files;
    }
    for (const sys::Mapping& mapping : sys::executable_mappings(pid)) {
        auto file = open_program_file(mapping);
        if (!file)
            continue;
        if (std::any_of(files.begin(), files.end(), [&](const ProbeFile& other) {
                return other.file.inode == file->inode && other.file.device == file->device;
            }))
            continue;
        auto probes = sys::list_usdt_probes(file->file.get());
        if (probes && !probes->empty())
            files.push_back({std::move(*file), std::move(*probes)});
    }
    if (files.empty())
        return Error::failed(fmt::format("nothing that process {} has mapped has probes", pid),
                             "programs have them that were built so: with --enable-dtrace or the "
                             "like");
    return files;
}

Result<func::Targets> find_probes(const std::vector<std::string>& words,
                                  std::vector<ProbeFile> files, func::Look look) {
    func::Targets targets;
    std::vector<std::string> names;
    for (const ProbeFile& file : files)
        for (const sys::UsdtProbe& probe : file.probes)
            names.push_back(full_name(probe));
    std::size_t marks = 0;
    /// The places of all probes of the name within one file, or of those that a glob names: place by place.
    const auto add = [&](std::size_t index, const Word& word) -> Result<std::size_t> {
        const ProbeFile& file = files[index];
        std::size_t found = 0;
        for (const sys::UsdtProbe& probe : file.probes) {
            if (probe.provider != word.provider)
                continue;
            const bool is_done = !word.done.empty() && probe.name == word.done;
            const bool is_begin =
                probe.name == word.begin ||
                (word.done.empty() && fnmatch(word.begin.c_str(), probe.name.c_str(), 0) == 0);
            if (!is_done && !is_begin)
                continue;
            NETCTL_TRY(check_site(file.file, probe));
            const std::string name = word.done.empty()
                                         ? full_name(probe)
                                         : word.provider + ":" + word.begin + ".." + word.done;
            auto place = std::find_if(targets.places.begin(), targets.places.end(),
                                      [&](const func::Place& other) {
                                          return other.file == index && other.name == name;
                                      });
            if (place == targets.places.end())
                place = targets.places.insert(place, func::Place{index, name, {}, 0, {}});
            const func::Mark mark{probe.offset, probe.semaphore, is_done};
            if (std::none_of(place->marks.begin(), place->marks.end(), [&](const func::Mark& one) {
                    return one.offset == mark.offset && one.done == mark.done;
                })) {
                place->marks.push_back(mark);
                ++marks;
            }
            ++found;
        }
        return found;
    };
    for (const std::string& text : words) {
        const Word word = NETCTL_TRY(parse_word(text, look));
        std::size_t found = 0;
        for (std::size_t i = 0; i < files.size(); ++i)
            found += NETCTL_TRY(add(i, word));
        for (const std::string& name : {word.begin, word.done}) {
            if (name.empty() || (word.done.empty() && found > 0))
                continue;
            const std::string full = word.provider + ":" + name;
            if (std::find(names.begin(), names.end(), full) == names.end())
                return Error::failed(
                    fmt::format("there is no probe '{}'{}", full, did_you_mean(full, names)),
                    "--list shows which there are");
        }
    }
    if (marks > most_marks)
        return Error::failed(
            fmt::format("that is {} places; at most {} are watched", marks, most_marks),
            "a narrower glob names fewer");
    for (ProbeFile& file : files)
        targets.files.push_back(std::move(file.file));
    return targets;
}

} // namespace netctl::trace::usdt
