// SPDX-License-Identifier: GPL-2.0-only
#include "core/output.hpp"

#include <gtest/gtest.h>

#include "core/json.hpp"

namespace netctl {
namespace {

TEST(TextTable, AlignsByTheWidestCell) {
    TextTable table({{"id", true}, {"rule"}, {"packets", true}});
    table.row({"7", "drop", "12345678"});
    table.row({"12", "src 192.0.2.1 pass", "1"});
    EXPECT_EQ(table.render("> "), "> id  rule                 packets\n"
                                  ">  7  drop                12345678\n"
                                  "> 12  src 192.0.2.1 pass         1\n");
}

TEST(TextTable, LeavesNoBlanksAtTheEnd) {
    TextTable table({{"a"}, {"b"}});
    table.row({"x"});
    EXPECT_EQ(table.render(), "a  b\nx\n");
}

TEST(Output, JsonOfBytesThatAreNoTextIsStillJson) {
    testing::internal::CaptureStdout();
    Output(true).document({{"name", "\xff\xfe"}}, Text());
    const std::string text = testing::internal::GetCapturedStdout();
    EXPECT_TRUE(Json::accept(text)) << text;
}

TEST(Output, QuietAndJsonSayNothingButResults) {
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    Output(true).done("attached");
    Output(false, true).done("attached");
    Output(false, true).note("fell back");
    EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

} // namespace
} // namespace netctl
