// SPDX-License-Identifier: GPL-2.0-only
#include "core/result.hpp"

#include <cerrno>
#include <optional>
#include <type_traits>

#include <gtest/gtest.h>

namespace netctl {
namespace {

TEST(Error, TellsWhatTheNumberMeans) {
    EXPECT_EQ(Error::system(EPERM, "cannot attach").what, "cannot attach: Operation not permitted");
    EXPECT_EQ(Error::system(524, "cannot attach").what, "cannot attach: not supported");
}

// `if (result)` asks whether it is known, and that is no question where the answer is yes or no.
template <class T> constexpr bool can_be_a_condition = std::is_constructible_v<bool, Result<T>>;
static_assert(can_be_a_condition<Ok> && can_be_a_condition<int>);
static_assert(!can_be_a_condition<bool> && !can_be_a_condition<std::optional<int>>);

} // namespace
} // namespace netctl
