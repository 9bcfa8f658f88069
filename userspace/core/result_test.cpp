// SPDX-License-Identifier: GPL-2.0-only
#include "core/result.hpp"

#include <cerrno>

#include <gtest/gtest.h>

namespace netctl {
namespace {

TEST(Error, TellsWhatTheNumberMeans) {
    EXPECT_EQ(Error::system(EPERM, "cannot attach").what, "cannot attach: Operation not permitted");
    EXPECT_EQ(Error::system(524, "cannot attach").what, "cannot attach: not supported");
}

} // namespace
} // namespace netctl
