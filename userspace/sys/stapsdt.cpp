// SPDX-License-Identifier: GPL-2.0-only
#include "sys/stapsdt.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <tuple>

#include <fmt/format.h>

#include "sys/elf.hpp"
#include "sys/elf_handle.hpp"

namespace netctl::sys {

namespace {

constexpr GElf_Word stapsdt_type = 3;

/// Sections of the name; their headers.
template <class Visit> void each_section(Elf* elf, std::string_view name, Visit visit) {
    std::size_t names = 0;
    if (elf_getshdrstrndx(elf, &names) != 0)
        return;
    for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf, section)) != nullptr;) {
        GElf_Shdr header;
        const char* own =
            gelf_getshdr(section, &header) ? elf_strptr(elf, names, header.sh_name) : nullptr;
        if (own && name == own)
            visit(section, header);
    }
}

/// Addresses of the place, of .stapsdt.base and of the semaphore, and three strings.
std::optional<UsdtProbe> parse_note(Elf* elf, std::string_view bytes, std::uint64_t base) {
    std::array<std::uint64_t, 3> addresses{};
    if (bytes.size() < sizeof addresses)
        return std::nullopt;
    std::memcpy(addresses.data(), bytes.data(), sizeof addresses);
    bytes.remove_prefix(sizeof addresses);
    std::array<std::string, 3> words;
    for (std::string& word : words) {
        const std::size_t end = bytes.find('\0');
        if (end == bytes.npos)
            return std::nullopt;
        word = bytes.substr(0, end);
        bytes.remove_prefix(end + 1);
    }
    // Whoever moved the file's addresses left the note as it was, but for where .stapsdt.base is.
    const std::uint64_t moved = base != 0 && addresses[1] != 0 ? base - addresses[1] : 0;
    const auto place = elf_offset(elf, addresses[0] + moved, PF_X);
    if (!place)
        return std::nullopt;
    UsdtProbe probe{words[0], words[1], words[2], *place, 0};
    if (addresses[2] != 0)
        probe.semaphore = elf_offset(elf, addresses[2] + moved, 0).value_or(0);
    return probe;
}

} // namespace

Result<std::vector<UsdtProbe>> list_usdt_probes(int fd) {
    if (!is_own_kind(fd))
        return Error::failed("it is no program or library of this machine's kind (ELF, 64 bits)");
    const ElfHandle elf = open_elf(fd);
    if (!elf)
        return Error::failed(fmt::format("cannot read the file: {}", elf_errmsg(-1)));
    std::uint64_t base = 0;
    each_section(elf.get(), ".stapsdt.base",
                 [&](Elf_Scn*, const GElf_Shdr& header) { base = header.sh_addr; });
    std::vector<UsdtProbe> probes;
    each_section(elf.get(), ".note.stapsdt", [&](Elf_Scn* section, const GElf_Shdr&) {
        Elf_Data* data = elf_getdata(section, nullptr);
        GElf_Nhdr note;
        std::size_t name = 0, text = 0;
        for (std::size_t at = 0; data && (at = gelf_getnote(data, at, &note, &name, &text)) > 0;) {
            const auto* bytes = static_cast<const char*>(data->d_buf);
            if (note.n_type != stapsdt_type || note.n_namesz != sizeof "stapsdt" ||
                std::memcmp(bytes + name, "stapsdt", sizeof "stapsdt") != 0)
                continue;
            if (auto probe = parse_note(elf.get(), {bytes + text, note.n_descsz}, base))
                probes.push_back(std::move(*probe));
        }
    });
    std::stable_sort(probes.begin(), probes.end(), [](const UsdtProbe& a, const UsdtProbe& b) {
        return std::tie(a.provider, a.name) < std::tie(b.provider, b.name);
    });
    return probes;
}

} // namespace netctl::sys
