// SPDX-License-Identifier: GPL-2.0-only
#include "sys/elf.hpp"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <tuple>

#include <fmt/format.h>

#include "core/fd.hpp"
#include "sys/elf_handle.hpp"

namespace netctl::sys {

namespace {

#if defined(__x86_64__)
constexpr GElf_Half own_machine = EM_X86_64;
#elif defined(__aarch64__)
constexpr GElf_Half own_machine = EM_AARCH64;
#endif

bool own_kind(Elf* elf) {
    GElf_Ehdr about;
    return elf_kind(elf) == ELF_K_ELF && gelf_getclass(elf) == ELFCLASS64 &&
           gelf_getehdr(elf, &about) && about.e_machine == own_machine;
}

/// Calls `visit` for each function that sections of this type define. False if there is no such section.
template <class Visit> bool each_function(Elf* elf, GElf_Word type, Visit visit) {
    bool any = false;
    for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf, section)) != nullptr;) {
        GElf_Shdr header;
        if (!gelf_getshdr(section, &header) || header.sh_type != type || header.sh_entsize == 0)
            continue;
        Elf_Data* data = elf_getdata(section, nullptr);
        any |= data != nullptr;
        const std::size_t count = data ? header.sh_size / header.sh_entsize : 0;
        for (std::size_t i = 0; i < count; ++i) {
            GElf_Sym symbol;
            if (!gelf_getsym(data, static_cast<int>(i), &symbol))
                break;
            const int kind = GELF_ST_TYPE(symbol.st_info);
            if ((kind != STT_FUNC && kind != STT_GNU_IFUNC) || symbol.st_shndx == SHN_UNDEF)
                continue;
            const char* name = elf_strptr(elf, header.sh_link, symbol.st_name);
            if (name && *name != '\0')
                visit(name, symbol);
        }
    }
    return any;
}

/// `.build-id/ab/cdef.debug` of the file's build id; empty if it has none.
std::string debug_name(Elf* elf) {
    for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf, section)) != nullptr;) {
        GElf_Shdr header;
        if (!gelf_getshdr(section, &header) || header.sh_type != SHT_NOTE)
            continue;
        Elf_Data* data = elf_getdata(section, nullptr);
        GElf_Nhdr note;
        std::size_t name = 0, text = 0;
        for (std::size_t at = 0; data && (at = gelf_getnote(data, at, &note, &name, &text)) > 0;) {
            const auto* bytes = static_cast<const unsigned char*>(data->d_buf);
            if (note.n_type != NT_GNU_BUILD_ID || note.n_namesz != 4 || note.n_descsz < 2 ||
                std::memcmp(bytes + name, "GNU", 4) != 0)
                continue;
            std::string digits;
            for (std::size_t i = 0; i < note.n_descsz; ++i)
                digits += fmt::format("{}{:02x}", i == 1 ? "/" : "", bytes[text + i]);
            return ".build-id/" + digits + ".debug";
        }
    }
    return {};
}

} // namespace

ElfHandle open_elf(int fd) {
    elf_version(EV_CURRENT);
    return ElfHandle(elf_begin(fd, ELF_C_READ_MMAP, nullptr));
}

std::optional<std::uint64_t> elf_offset(Elf* elf, std::uint64_t address, GElf_Word flags) {
    std::size_t count = 0;
    if (elf_getphdrnum(elf, &count) != 0)
        return std::nullopt;
    for (std::size_t i = 0; i < count; ++i) {
        GElf_Phdr segment;
        if (gelf_getphdr(elf, static_cast<int>(i), &segment) && segment.p_type == PT_LOAD &&
            (segment.p_flags & flags) == flags && address >= segment.p_vaddr &&
            address - segment.p_vaddr < segment.p_filesz)
            return address - segment.p_vaddr + segment.p_offset;
    }
    return std::nullopt;
}

Result<std::map<std::string, std::uint64_t>> find_functions(int fd,
                                                            std::span<const char* const> names) {
    std::map<std::string, std::uint64_t> found;
    const ElfHandle elf = open_elf(fd);
    if (!elf)
        return Error::failed(fmt::format("cannot read the file: {}", elf_errmsg(-1)));
    if (!own_kind(elf.get()))
        return found;
    for (const GElf_Word type : {GElf_Word{SHT_DYNSYM}, GElf_Word{SHT_SYMTAB}}) {
        each_function(elf.get(), type, [&](const char* name, const GElf_Sym& symbol) {
            if (GELF_ST_TYPE(symbol.st_info) != STT_FUNC ||
                std::none_of(names.begin(), names.end(),
                             [&](const char* wanted) { return std::strcmp(wanted, name) == 0; }))
                return;
            if (const auto offset = elf_offset(elf.get(), symbol.st_value, PF_X))
                found.emplace(name, *offset);
        });
        if (!found.empty())
            break;
    }
    return found;
}

Result<ElfFunctions> list_functions(int fd) {
    const ElfHandle elf = open_elf(fd);
    if (!elf)
        return Error::failed(fmt::format("cannot read the file: {}", elf_errmsg(-1)));
    if (!own_kind(elf.get()))
        return Error::failed("it is no program or library of this machine's kind (ELF, 64 bits)");
    ElfFunctions found;
    const auto add = [&](const char* name, const GElf_Sym& symbol) {
        if (const auto offset = elf_offset(elf.get(), symbol.st_value, PF_X))
            found.functions.push_back(
                {name, *offset, GELF_ST_TYPE(symbol.st_info) == STT_GNU_IFUNC});
    };
    each_function(elf.get(), SHT_DYNSYM, add);
    if (!each_function(elf.get(), SHT_SYMTAB, add)) {
        found.stripped = true;
        if (const std::string name = debug_name(elf.get()); !name.empty()) {
            const Fd debug(open(("/usr/lib/debug/" + name).c_str(), O_RDONLY | O_CLOEXEC));
            if (const ElfHandle symbols = debug ? open_elf(debug.get()) : nullptr)
                found.stripped = !each_function(symbols.get(), SHT_SYMTAB, add);
        }
    }
    const auto key = [](const ElfFunction& one) { return std::tie(one.name, one.offset); };
    auto& all = found.functions;
    std::sort(all.begin(), all.end(),
              [&](const auto& a, const auto& b) { return key(a) < key(b); });
    all.erase(std::unique(all.begin(), all.end(),
                          [&](const auto& a, const auto& b) { return key(a) == key(b); }),
              all.end());
    return found;
}

bool is_code(int fd, std::uint64_t offset) {
    const ElfHandle elf = open_elf(fd);
    std::size_t count = 0;
    if (!elf || !own_kind(elf.get()) || elf_getphdrnum(elf.get(), &count) != 0)
        return false;
    for (std::size_t i = 0; i < count; ++i) {
        GElf_Phdr segment;
        if (gelf_getphdr(elf.get(), static_cast<int>(i), &segment) && segment.p_type == PT_LOAD &&
            (segment.p_flags & PF_X) != 0 && offset >= segment.p_offset &&
            offset - segment.p_offset < segment.p_filesz)
            return true;
    }
    return false;
}

bool is_own_kind(int fd) {
    const ElfHandle elf = open_elf(fd);
    return elf && own_kind(elf.get());
}

bool has_section(int fd, const std::string& name) {
    const ElfHandle elf = open_elf(fd);
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
