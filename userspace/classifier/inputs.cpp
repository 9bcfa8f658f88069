// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/inputs.hpp"

namespace netctl::classifier {

namespace {

constexpr std::uint64_t byte = 0xff;

constexpr Input table_of(std::string_view name, std::uint32_t group) {
    return {name, InputForm::table, byte, group};
}

constexpr std::array<Input, NC_INPUTS> make_inputs() {
    std::array<Input, NC_INPUTS> all{};
    all[NC_INPUT_FAMILY] = {"address families", InputForm::table, 2, 1};
#define NETCTL_INPUT_ADDRESS(NAME, text, group)                                                    \
    all[NC_INPUT_##NAME] = {"lists in " text, InputForm::classes, 0, group};
#define NETCTL_INPUT_U8(NAME, text, group) all[NC_INPUT_##NAME] = table_of(text, group);
#define NETCTL_INPUT_U16(NAME, text, group)                                                        \
    all[NC_INPUT_##NAME] = {text, InputForm::blocks, 0xffff, group};
#define NETCTL_INPUT_U32(NAME, text, group)                                                        \
    all[NC_INPUT_##NAME] = {text, InputForm::trie, 0xffffffff, group, NC_PATH_##NAME, 32};
#define NETCTL_INPUT_MAC(NAME, text, group)                                                        \
    all[NC_INPUT_##NAME] = {text, InputForm::trie, 0xffffffffffff, group, NC_PATH_##NAME, 48};
#define NETCTL_INPUT_MASK32(NAME, text, group)                                                     \
    for (std::uint32_t i = 0; i < 4; ++i)                                                          \
        all[NC_INPUT_##NAME + i] = table_of(text, group);
#define NETCTL_INPUT(NAME, name, text, kind, part, group, ...)                                     \
    NETCTL_INPUT_##kind(NAME, text, group)
    NC_PACKET_KEYS(NETCTL_INPUT)
    for (std::uint32_t i = NC_INPUT_SETS; i < NC_INPUTS; ++i)
        all[i] = table_of("sets", 2);
    return all;
}

constexpr std::array<Input, NC_INPUTS> inputs = make_inputs();

} // namespace

const Input& input_info(std::uint32_t input) {
    return inputs[input];
}

std::uint32_t input_of(Key key) {
#define NETCTL_FIRST(NAME, name, ...) NC_INPUT_##NAME,
    constexpr std::array<std::uint32_t, NC_FIELDS> first{NC_PACKET_KEYS(NETCTL_FIRST)};
    return first[static_cast<std::size_t>(key)];
}

unsigned inputs_of(Key key) {
    const std::size_t next = static_cast<std::size_t>(key) + 1;
    const std::uint32_t end =
        next < NC_FIELDS ? input_of(static_cast<Key>(next)) : std::uint32_t{NC_INPUT_SETS};
    return end - input_of(key);
}

} // namespace netctl::classifier
