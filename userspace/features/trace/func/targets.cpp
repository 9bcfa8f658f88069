// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/func/targets.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <fnmatch.h>
#include <memory>
#include <optional>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "core/suggest.hpp"
#include "features/trace/demangle.hpp"
#include "sys/elf.hpp"
#include "sys/kernel_symbols.hpp"

namespace netctl::trace::func {

namespace {

/// More of a program's functions than anybody can read about; each is two descriptors and two stops of the program.
constexpr std::size_t most_places = 256;
/// Each is loaded by itself.
constexpr std::size_t most_of_kernel = 64;

struct Word {
    std::string file;
    std::string name; ///< a glob; empty: none
    std::optional<std::uint64_t> offset;
};

Result<Word> parse_word(const std::string& word) {
    const std::size_t colon = word.find(':');
    if (colon == word.npos)
        return Error::usage(fmt::format("'{}' names no function", word),
                            "FILE:NAME, as libc:getaddrinfo or ./program:main, or k:NAME");
    Word parsed{word.substr(0, colon), word.substr(colon + 1), std::nullopt};
    // `operator+` of C++ has no number behind it.
    const std::size_t plus = parsed.name.rfind('+');
    if (plus != parsed.name.npos && plus + 1 < parsed.name.size()) {
        std::string_view digits = std::string_view(parsed.name).substr(plus + 1);
        const bool hex = digits.starts_with("0x") || digits.starts_with("0X");
        if (hex)
            digits.remove_prefix(2);
        std::uint64_t offset = 0;
        const auto [end, status] =
            std::from_chars(digits.begin(), digits.end(), offset, hex ? 16 : 10);
        if (status != std::errc{} || end != digits.end() || digits.empty())
            return Error::usage(
                fmt::format("'{}': '{}' is no offset", word, parsed.name.substr(plus + 1)),
                "a number of bytes: +16, +0x10");
        parsed.offset = offset;
        parsed.name.resize(plus);
    }
    if (parsed.name.empty() && !parsed.offset)
        return Error::usage(fmt::format("'{}' names no function", word),
                            "'*' behind the colon is all of them");
    return parsed;
}

/// Without the parameters of C++: `ns::f(int)` is also called `ns::f`.
std::string_view without_parameters(std::string_view name) {
    return name.substr(0, std::max<std::size_t>(name.find('('), 1));
}

bool is_glob(const std::string& name) {
    return name.find_first_of("*?[") != name.npos;
}

bool matches(const std::string& wanted, const std::string& symbol, const std::string& name) {
    const auto match = [&](const std::string& one) {
        return one == wanted || fnmatch(wanted.c_str(), one.c_str(), 0) == 0;
    };
    return match(symbol) ||
           (name != symbol && (match(name) || match(std::string(without_parameters(name)))));
}

Result<> check_middle(const std::string& word, int file, std::uint64_t offset) {
    if (!sys::is_code(file, offset))
        return Error::failed(fmt::format("'{}': there is no code", word));
    if (NETCTL_TRY(is_wide_nop(file, offset)))
        return Error::failed(
            fmt::format("'{}': there is a no-operation of five bytes, where a probe may overwrite "
                        "what the function keeps below its stack",
                        word),
            "take the instruction before or behind it");
    return {};
}

class Finder {
  public:
    Finder(std::uint32_t pid, Look look) : pid_(pid), look_(look) {}

    Result<> add(const std::string& word) {
        const Word parsed = NETCTL_TRY(parse_word(word));
        return parsed.file == "k" ? add_kernel(word, parsed) : add_file(word, parsed);
    }
    Targets take() { return std::move(targets_); }

  private:
    Result<> add_kernel(const std::string& word, const Word& wanted) {
        if (wanted.offset)
            return Error::usage(fmt::format("'{}': of the kernel, functions alone", word));
        if (kernel_.empty()) {
            kernel_ = sys::KernelSymbols().names();
            std::sort(kernel_.begin(), kernel_.end());
        }
        if (kernel_.empty())
            return Error::failed("the kernel hides its functions from this process",
                                 "that takes root, and kernel.kptr_restrict below 2");
        std::size_t count = 0;
        for (auto name = kernel_.begin(); name != kernel_.end();) {
            const auto next = std::upper_bound(name, kernel_.end(), *name);
            if (*name == wanted.name && next - name > 1)
                return Error::failed(
                    fmt::format("the kernel has {} functions of the name '{}'", next - name, *name),
                    "which one is meant cannot be said");
            if (next - name == 1 && matches(wanted.name, *name, *name)) {
                ++count;
                keep({Place::kernel, *name, *name, 0, {}});
            }
            name = next;
        }
        if (count == 0)
            return Error::failed(fmt::format("the kernel has no function '{}'{}", wanted.name,
                                             did_you_mean(wanted.name, kernel_)));
        if (count > most_of_kernel)
            return too_many(word, count, most_of_kernel);
        return {};
    }

    Result<> add_file(const std::string& word, const Word& wanted) {
        ProgramFile found = NETCTL_TRY(find_program_file(wanted.file, pid_));
        std::size_t index = 0;
        while (index < targets_.files.size() && (targets_.files[index].inode != found.inode ||
                                                 targets_.files[index].device != found.device))
            ++index;
        if (index == targets_.files.size())
            targets_.files.push_back(std::move(found));
        const ProgramFile& file = targets_.files[index];
        if (look_ == Look::times && sys::has_section(file.file.get(), ".gopclntab"))
            return Error::failed(
                fmt::format("{} is a Go program: it moves its stacks, and would crash at a return "
                            "that is looked at",
                            file.path),
                "--calls counts its calls, without times");
        if (wanted.name.empty())
            return add_offset(word, index, *wanted.offset);
        auto listed = sys::list_functions(file.file.get());
        if (!listed)
            return std::move(listed).error().within(Text(file.path));
        std::size_t count = 0;
        bool resolver = false;
        for (const sys::ElfFunction& function : listed->functions) {
            const std::string name = demangled(function.name);
            if (!matches(wanted.name, function.name, name))
                continue;
            if (function.resolver) {
                resolver = true;
                continue;
            }
            Place place{index, name, function.name, function.offset, {}};
            if (wanted.offset.value_or(0) != 0) {
                if (look_ == Look::times)
                    return Error::usage(
                        fmt::format("'{}' is within a function, and has no time that it takes",
                                    word),
                        "--calls counts how often it is come by");
                place.offset += *wanted.offset;
                place.name += fmt::format("+{:#x}", *wanted.offset);
                NETCTL_TRY(check_middle(word, file.file.get(), place.offset));
            }
            ++count;
            keep(std::move(place));
        }
        // An older version of it may be a function, which few call.
        if (count == 0 || (resolver && !is_glob(wanted.name)))
            return none_of_them(file, wanted, *listed, resolver);
        if (count > most_places)
            return too_many(word, count, most_places);
        return {};
    }

    /// The user says that a function begins there.
    Result<> add_offset(const std::string& word, std::size_t index, std::uint64_t offset) {
        NETCTL_TRY(check_middle(word, targets_.files[index].file.get(), offset));
        keep({index, fmt::format("+{:#x}", offset), {}, offset, {}});
        return {};
    }

    static Error none_of_them(const ProgramFile& file, const Word& wanted,
                              const sys::ElfFunctions& listed, bool resolver) {
        if (resolver)
            return Error::failed(
                fmt::format("which function of {} is called '{}' is chosen when a program starts",
                            file.path, wanted.name),
                "name the one that is, as __memcpy_avx_unaligned; they may be hidden (stripped)");
        std::vector<std::string> names;
        for (const sys::ElfFunction& function : listed.functions)
            names.emplace_back(without_parameters(demangled(function.name)));
        const std::string like =
            is_glob(wanted.name) ? std::string() : did_you_mean(wanted.name, names);
        if (listed.stripped)
            return Error::failed(
                fmt::format("{} has no function '{}'{}", file.path, wanted.name, like),
                fmt::format("it is stripped: only the {} that it offers to others have names; its "
                            "debug symbols in /usr/lib/debug have the others, and FILE:+OFFSET "
                            "names where one begins",
                            listed.functions.size()));
        return Error::failed(fmt::format("{} has no function '{}'{}", file.path, wanted.name, like),
                             "functions that the compiler put into others are none any more");
    }

    static Error too_many(const std::string& word, std::size_t count, std::size_t most) {
        return Error::failed(
            fmt::format("'{}' names {} functions; at most {} are watched", word, count, most),
            "a narrower glob names fewer");
    }

    void keep(Place place) {
        for (const Place& other : targets_.places)
            if (other.file == place.file &&
                (place.file == Place::kernel ? other.name == place.name
                                             : other.offset == place.offset))
                return;
        targets_.places.push_back(std::move(place));
    }

    std::uint32_t pid_;
    Look look_;
    Targets targets_;
    std::vector<std::string> kernel_; ///< sorted
};

} // namespace

Result<bool> is_wide_nop(int file, std::uint64_t offset) {
#if defined(__x86_64__)
    constexpr std::array<unsigned char, 5> nop{0x0f, 0x1f, 0x44, 0x00, 0x00};
    std::array<unsigned char, 5> bytes{};
    if (pread(file, bytes.data(), bytes.size(), static_cast<off_t>(offset)) < 0)
        return Error::system(errno, "cannot read the file");
    return bytes == nop;
#else
    (void)file, (void)offset;
    return false;
#endif
}

std::string Targets::label(const Place& place) const {
    if (place.file == Place::kernel)
        return "k:" + place.name;
    if (!place.marks.empty())
        return place.name;
    const std::string& path = files[place.file].path;
    return path.substr(path.rfind('/') + 1) + ":" + place.name;
}

Result<Targets> find_targets(const std::vector<std::string>& words, std::uint32_t pid, Look look) {
    if (words.empty())
        return Error::usage("TARGET is missing: which function?", "FILE:NAME, or k:NAME");
    Finder finder(pid, look);
    for (const std::string& word : words)
        NETCTL_TRY(finder.add(word));
    Targets targets = finder.take();
    if (targets.places.size() > most_places)
        return Error::failed(fmt::format("{} functions are named; at most {} are watched",
                                         targets.places.size(), most_places));
    return targets;
}

} // namespace netctl::trace::func
