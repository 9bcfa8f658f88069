// SPDX-License-Identifier: GPL-2.0-only
#include "sys/usdt_argument.hpp"

#include <algorithm>
#include <array>
#include <asm/ptrace.h>
#include <charconv>
#include <cstddef>
#include <string>

namespace netctl::sys {

namespace {

/// Takes a number away from the beginning.
template <class Number> bool take_number(std::string_view& text, Number& number) {
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return status == std::errc{};
}

#if defined(__x86_64__)

struct Register {
    std::array<const char*, 4> names; ///< of 8, 4, 2 bytes and 1
    std::size_t offset;
};
constexpr std::array<Register, 8> registers{{
    {{"rax", "eax", "ax", "al"}, offsetof(pt_regs, rax)},
    {{"rbx", "ebx", "bx", "bl"}, offsetof(pt_regs, rbx)},
    {{"rcx", "ecx", "cx", "cl"}, offsetof(pt_regs, rcx)},
    {{"rdx", "edx", "dx", "dl"}, offsetof(pt_regs, rdx)},
    {{"rsi", "esi", "si", "sil"}, offsetof(pt_regs, rsi)},
    {{"rdi", "edi", "di", "dil"}, offsetof(pt_regs, rdi)},
    {{"rbp", "ebp", "bp", "bpl"}, offsetof(pt_regs, rbp)},
    {{"rsp", "esp", "sp", "spl"}, offsetof(pt_regs, rsp)},
}};
/// From r8 on.
constexpr std::array<std::size_t, 8> numbered{
    offsetof(pt_regs, r8),  offsetof(pt_regs, r9),  offsetof(pt_regs, r10), offsetof(pt_regs, r11),
    offsetof(pt_regs, r12), offsetof(pt_regs, r13), offsetof(pt_regs, r14), offsetof(pt_regs, r15)};

std::optional<std::uint16_t> offset_of(std::string_view name) {
    for (const Register& one : registers)
        if (std::find(one.names.begin(), one.names.end(), name) != one.names.end())
            return static_cast<std::uint16_t>(one.offset);
    unsigned number = 0;
    if (!name.starts_with('r'))
        return std::nullopt;
    name.remove_prefix(1);
    if (!take_number(name, number) || number < 8 || number > 15 ||
        (!name.empty() && name != "d" && name != "w" && name != "b"))
        return std::nullopt;
    return static_cast<std::uint16_t>(numbered[number - 8]);
}

/// `%r14`, `112(%rsp)`, `(%rax)`.
bool parse_operand(std::string_view text, UsdtArgument& argument) {
    if (!text.starts_with('%')) {
        if (!text.starts_with('(') && !take_number(text, argument.displacement))
            return false;
        if (!text.starts_with("(%") || !text.ends_with(')'))
            return false;
        argument.in_memory = true;
        text = text.substr(1, text.size() - 2);
    }
    const auto offset = offset_of(text.substr(1));
    argument.register_offset = offset.value_or(0);
    return offset.has_value();
}

#elif defined(__aarch64__)

std::optional<std::uint16_t> offset_of(std::string_view name) {
    if (name == "sp")
        return static_cast<std::uint16_t>(offsetof(user_pt_regs, sp));
    unsigned number = 0;
    if (!name.starts_with('x') && !name.starts_with('w'))
        return std::nullopt;
    name.remove_prefix(1);
    if (!take_number(name, number) || number > 30 || !name.empty())
        return std::nullopt;
    return static_cast<std::uint16_t>(8 * number);
}

/// `x19`, `[sp, 16]`, `[x0]`.
bool parse_operand(std::string_view text, UsdtArgument& argument) {
    if (text.starts_with('[') && text.ends_with(']')) {
        argument.in_memory = true;
        text = text.substr(1, text.size() - 2);
        if (const std::size_t comma = text.find(','); comma != text.npos) {
            std::string_view rest = text.substr(comma + 1);
            rest.remove_prefix(std::min(rest.size(), rest.find_first_not_of(' ')));
            if (!take_number(rest, argument.displacement) || !rest.empty())
                return false;
            text = text.substr(0, comma);
        }
    }
    const auto offset = offset_of(text);
    argument.register_offset = offset.value_or(0);
    return offset.has_value();
}

#endif

} // namespace

std::optional<std::vector<UsdtArgument>> parse_usdt_arguments(std::string_view text) {
    std::vector<UsdtArgument> arguments;
    while (!text.empty()) {
        if (text.starts_with(' ')) {
            text.remove_prefix(1);
            continue;
        }
        UsdtArgument argument;
        int size = 0;
        if (!take_number(text, size) || !text.starts_with('@'))
            return std::nullopt;
        argument.is_signed = size < 0;
        argument.size = static_cast<unsigned>(size < 0 ? -size : size);
        if (argument.size != 1 && argument.size != 2 && argument.size != 4 && argument.size != 8)
            return std::nullopt;
        text.remove_prefix(1);
        // Within brackets there are blanks.
        const std::size_t end = text.starts_with('[') ? text.find(']') : text.find(' ');
        const std::string_view operand =
            text.substr(0, text.starts_with('[') && end != text.npos ? end + 1 : end);
        if (!parse_operand(operand, argument))
            return std::nullopt;
        text.remove_prefix(operand.size());
        arguments.push_back(argument);
    }
    return arguments;
}

} // namespace netctl::sys
