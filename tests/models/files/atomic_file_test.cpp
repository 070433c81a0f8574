#include "models/files/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "models/files/hashing.h"
#include "models/files/mapped_file.h"
#include "tests/models/files/test_support.h"

namespace lomu {
namespace {

using test::error_of;
using test::read_text;
using test::ScratchFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(AtomicFile, ReplacesOnlyOnCommit) {
  const ScratchFolder scratch;
  test::write_text(scratch / "x", "old");
  {
    AtomicFile file(scratch / "x");
    file.write("new");
    EXPECT_EQ(read_text(scratch / "x"), "old");
  }
  EXPECT_EQ(read_text(scratch / "x"), "old");
  write_file(scratch / "x", "new");
  EXPECT_EQ(read_text(scratch / "x"), "new");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch.path()), {}), 1);
}

TEST(AtomicFile, MissingFolderIsAFileErrorWithAHint) {
  const ScratchFolder scratch;
  EXPECT_THAT(error_of<FileError>([&] { write_file(scratch / "no/x", ""); }),
              AllOf(HasSubstr("no/x"), HasSubstr("check the path")));
}

TEST(AtomicFile, AFileSystemThatTakesNoFilesIsAFileError) {
  EXPECT_THAT(error_of<FileError>([] { write_file("/proc/x", "text"); }), HasSubstr("/proc/x"));
}

TEST(AtomicFile, AFolderThatCannotBeWrittenIsAFileError) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write anywhere";
  const ScratchFolder scratch;
  std::filesystem::permissions(scratch.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  EXPECT_THAT(error_of<FileError>([&] { write_file(scratch / "x", ""); }), HasSubstr("permissions"));
  std::filesystem::permissions(scratch.path(), std::filesystem::perms::owner_all);
}

TEST(AtomicFolder, AppearsWholeOrNotAtAll) {
  const ScratchFolder scratch;
  {
    AtomicFolder folder(scratch / "deep/er/out", IfExists::kRefuse);
    test::write_text(folder.path() / "a", "a");
  }
  EXPECT_FALSE(std::filesystem::exists(scratch / "deep/er/out"));
  EXPECT_TRUE(std::filesystem::is_empty(scratch / "deep/er"));
  AtomicFolder folder(scratch / "deep/er/out/", IfExists::kRefuse);
  test::write_text(folder.path() / "a", "a");
  std::filesystem::create_directory(folder.path() / "sub");
  test::write_text(folder.path() / "sub/b", "b");
  folder.commit();
  EXPECT_EQ(read_text(scratch / "deep/er/out/sub/b"), "b");
}

TEST(AtomicFolder, RefusesOrReplacesWhatIsThere) {
  const ScratchFolder scratch;
  std::filesystem::create_directory(scratch / "out");
  test::write_text(scratch / "out/old", "old");
  EXPECT_THAT(error_of<FileError>([&] { AtomicFolder(scratch / "out", IfExists::kRefuse); }),
              HasSubstr("exists already"));
  {
    AtomicFolder folder(scratch / "out", IfExists::kReplace);
    test::write_text(folder.path() / "new", "new");
    EXPECT_TRUE(std::filesystem::exists(scratch / "out/old"));
    folder.commit();
  }
  EXPECT_FALSE(std::filesystem::exists(scratch / "out/old"));
  EXPECT_EQ(read_text(scratch / "out/new"), "new");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch.path()), {}), 1);
}

TEST(AtomicFolder, NeverReplacesAFile) {
  const ScratchFolder scratch;
  test::write_text(scratch / "out", "mine");
  EXPECT_THROW(AtomicFolder(scratch / "out", IfExists::kReplace), FileError);
  EXPECT_EQ(read_text(scratch / "out"), "mine");
}

TEST(AtomicFolder, AFolderThatAppearsMeanwhileIsNotOverwritten) {
  const ScratchFolder scratch;
  AtomicFolder folder(scratch / "out", IfExists::kRefuse);
  std::filesystem::create_directory(scratch / "out");
  test::write_text(scratch / "out/theirs", "theirs");
  EXPECT_THAT(error_of<FileError>([&] { folder.commit(); }), HasSubstr("exists already"));
  EXPECT_EQ(read_text(scratch / "out/theirs"), "theirs");
}

TEST(MappedFile, IsWhatTheFileIsAndMayBeEmpty) {
  const ScratchFolder scratch;
  const std::string text(100'000, 'x');
  MappedFile file(test::write_text(scratch / "x", text));
  EXPECT_EQ(file.size(), text.size());
  file.drop_pages(file.bytes().subspan(10));
  EXPECT_EQ(static_cast<char>(file.bytes()[50'000]), 'x');
  MappedFile moved = std::move(file);
  EXPECT_EQ(moved.size(), text.size());
  moved = MappedFile(test::write_text(scratch / "empty", ""));
  EXPECT_EQ(moved.size(), 0u);
  EXPECT_TRUE(moved.bytes().empty());
}

TEST(Hashing, AreTheKnownDigests) {
  const ScratchFolder scratch;
  // FIPS 180-2, "abc"; XXH3 of nothing (xxHash's own test vector).
  EXPECT_EQ(sha256_of_file(test::write_text(scratch / "abc", "abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(FastHash().hex(), "2d06800538d394c2");
  FastHash a;
  a.add(std::string_view("ab"));
  a.add(std::string_view("c"));
  FastHash b;
  b.add(std::string_view("a"));
  b.add(std::string_view("bc"));
  EXPECT_NE(a.value(), b.value());
}

}  // namespace
}  // namespace lomu
