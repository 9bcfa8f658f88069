// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/bpffs.hpp"

#include <filesystem>
#include <type_traits>

#include <gtest/gtest.h>

#include "bpf/pin_dir.hpp"

namespace netctl::bpf {

namespace {

// An empty path would lead to the top of the file system.
static_assert(!std::is_default_constructible_v<PinDir>);

TEST(PinDir, IsStillThereWhenItWasMovedFrom) {
    const auto root = PinDir::open("/nowhere/at/all");
    ASSERT_TRUE(root);
    PinDir from = root->sub("sets");
    const PinDir to = std::move(from);
    EXPECT_EQ(to.path(), "/nowhere/at/all/sets");
    EXPECT_EQ(from.path(), to.path()); // NOLINT(bugprone-use-after-move): what this is about
    EXPECT_EQ(to.name(), "sets");
    EXPECT_EQ(to.parent_name(), "all");
}

TEST(PinDir, WhereNothingIsNothingIsMade) {
    const auto root = PinDir::open("/nowhere/at/all");
    ASSERT_TRUE(root);
    EXPECT_FALSE(root->exists());
    EXPECT_TRUE(root->list().empty());
    EXPECT_FALSE(root->sub("sets").create());
    EXPECT_TRUE(root->sub("sets").remove_all());
    EXPECT_FALSE(std::filesystem::exists("/nowhere"));
}

TEST(PinDir, TheRootIsNotRemovedWithAllThatIsInIt) {
    const auto root = PinDir::open("/nowhere/at/all");
    ASSERT_TRUE(root);
    EXPECT_FALSE(root->remove_all());
}

TEST(PinDir, OutsideOfABpffsThereIsNone) {
    const auto root = PinDir::open("/usr/bin");
    ASSERT_FALSE(root);
    EXPECT_EQ(root.error().what, "/usr/bin is not in a bpffs");
}

TEST(RootPath, SlashesAreNoMatter) {
    for (const char* path : {"/sys/fs/bpf/x", "/sys/fs/bpf/x/", "//sys///fs/bpf/x//"}) {
        const auto read = root_path(path);
        ASSERT_TRUE(read) << path;
        EXPECT_EQ(*read, "/sys/fs/bpf/x") << path;
    }
}

TEST(RootPath, IsRefusedWhereItLeadsElsewhere) {
    for (const char* path :
         {"", "/", "//", "x", "./x", "/sys/./x", "/sys/../x", "/sys/fs/bpf/..", "."}) {
        const auto read = root_path(path);
        ASSERT_FALSE(read) << path;
        EXPECT_EQ(read.error().kind, ErrorKind::usage) << path;
        EXPECT_FALSE(read.error().hint.empty()) << path;
    }
    EXPECT_EQ(root_path("/sys/fs/bpf/../../../tmp/x").error().hint,
              "if you mean /tmp/x, give that");
}

} // namespace

} // namespace netctl::bpf
