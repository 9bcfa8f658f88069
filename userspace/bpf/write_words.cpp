// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/write_words.hpp"

#include <span>

#include "bpf/object.hpp"
#include "bpf/xdp.hpp"
#include "write_words.skel.h"

namespace netctl::bpf {

Result<> write_words(const RawMap& array, const std::array<PlacedWord, 2>& words) {
    const auto skeleton = NETCTL_TRY(Skeleton<::write_words>::open());
    const Object object = skeleton.object();
    const auto set = [&](const char* name, const auto& value) {
        return object.set_rodata(name, std::as_bytes(std::span(&value, 1)));
    };
    NETCTL_TRY(set("first_place", words[0].place));
    NETCTL_TRY(set("first_word", words[0].word));
    NETCTL_TRY(set("second_place", words[1].place));
    NETCTL_TRY(set("second_word", words[1].word));
    NETCTL_TRY(object.reuse("words", array));
    NETCTL_TRY(object.load());
    const std::array<std::uint8_t, 64> frame{}; // it is run over one, and does not look at it
    const TestRun run = NETCTL_TRY(test_run(NETCTL_TRY(object.program("write_words")), frame));
    if (run.action != 1)
        return Error::failed("an array is shorter than the places that are to be written");
    return {};
}

} // namespace netctl::bpf
