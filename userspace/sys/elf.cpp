// SPDX-License-Identifier: GPL-2.0-only
#include "sys/elf.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include <fmt/format.h>
#include <gelf.h>
#include <libelf.h>

namespace netctl::sys {

namespace {

#if defined(__x86_64__)
constexpr GElf_Half own_machine = EM_X86_64;
#elif defined(__aarch64__)
constexpr GElf_Half own_machine = EM_AARCH64;
#endif

struct End {
    void operator()(Elf* elf) const { elf_end(elf); }
};
using Handle = std::unique_ptr<Elf, End>;

Handle open_elf(int fd) {
    elf_version(EV_CURRENT);
    return Handle(elf_begin(fd, ELF_C_READ_MMAP, nullptr));
}

/// Of an address as the file was linked; nothing if no segment of code holds it.
std::optional<std::uint64_t> offset_of(Elf* elf, std::uint64_t address) {
    std::size_t count = 0;
    if (elf_getphdrnum(elf, &count) != 0)
        return std::nullopt;
    for (std::size_t i = 0; i < count; ++i) {
        GElf_Phdr segment;
        if (!gelf_getphdr(elf, static_cast<int>(i), &segment))
            continue;
        if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X) != 0 &&
            address >= segment.p_vaddr && address - segment.p_vaddr < segment.p_filesz)
            return address - segment.p_vaddr + segment.p_offset;
    }
    return std::nullopt;
}

void find_in(Elf* elf, Elf_Scn* section, const GElf_Shdr& header,
             std::span<const char* const> names, std::map<std::string, std::uint64_t>& found) {
    Elf_Data* data = elf_getdata(section, nullptr);
    if (!data || header.sh_entsize == 0)
        return;
    const std::size_t count = header.sh_size / header.sh_entsize;
    for (std::size_t i = 0; i < count; ++i) {
        GElf_Sym symbol;
        if (!gelf_getsym(data, static_cast<int>(i), &symbol))
            return;
        if (GELF_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_shndx == SHN_UNDEF)
            continue;
        const char* name = elf_strptr(elf, header.sh_link, symbol.st_name);
        if (!name || std::none_of(names.begin(), names.end(), [&](const char* wanted) {
                return std::strcmp(wanted, name) == 0;
            }))
            continue;
        if (const auto offset = offset_of(elf, symbol.st_value))
            found.emplace(name, *offset);
    }
}

} // namespace

Result<std::map<std::string, std::uint64_t>> find_functions(int fd,
                                                            std::span<const char* const> names) {
    std::map<std::string, std::uint64_t> found;
    const Handle elf = open_elf(fd);
    if (!elf)
        return Error::failed(fmt::format("cannot read the file: {}", elf_errmsg(-1)));
    GElf_Ehdr about;
    if (elf_kind(elf.get()) != ELF_K_ELF || gelf_getclass(elf.get()) != ELFCLASS64 ||
        !gelf_getehdr(elf.get(), &about) || about.e_machine != own_machine)
        return found;
    for (const GElf_Word type : {GElf_Word{SHT_DYNSYM}, GElf_Word{SHT_SYMTAB}}) {
        for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf.get(), section)) != nullptr;) {
            GElf_Shdr header;
            if (gelf_getshdr(section, &header) && header.sh_type == type)
                find_in(elf.get(), section, header, names, found);
        }
        if (!found.empty())
            break;
    }
    return found;
}

bool has_section(int fd, const std::string& name) {
    const Handle elf = open_elf(fd);
    std::size_t names = 0;
    if (!elf || elf_kind(elf.get()) != ELF_K_ELF || elf_getshdrstrndx(elf.get(), &names) != 0)
        return false;
    for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf.get(), section)) != nullptr;) {
        GElf_Shdr header;
        const char* own =
            gelf_getshdr(section, &header) ? elf_strptr(elf.get(), names, header.sh_name) : nullptr;
        if (own && name == own)
            return true;
    }
    return false;
}

} // namespace netctl::sys
