#include "generation/stop_strings.h"

#include <gtest/gtest.h>

#include "comba/error.h"

namespace comba::generation {
namespace {

struct Outcome {
  std::string text;
  bool found;
  bool operator==(const Outcome&) const = default;
};

void PrintTo(const Outcome& outcome, std::ostream* stream) { *stream << outcome.text << (outcome.found ? " |" : ""); }

/// The text fed in pieces that end at the set bits of `cuts`.
Outcome feed_in_pieces(const std::vector<std::string>& strings, const std::string& text, unsigned cuts) {
  StopStrings stop(strings);
  Outcome outcome{};
  std::string piece;
  for (std::size_t i = 0; i < text.size(); ++i) {
    piece += text[i];
    if ((cuts >> i & 1) == 0 && i + 1 < text.size()) continue;
    outcome.text += stop.feed(piece);
    piece.clear();
  }
  outcome.found = stop.found();
  outcome.text += stop.finish();
  return outcome;
}

TEST(StopStrings, ThePiecesDoNotMatter) {
  const std::vector<std::string> strings = {"abab", "bb", "cab", "abcab"};
  const auto check = [&](const std::string& text, const Outcome& expected) {
    for (unsigned cuts = 0; cuts < 1u << text.size(); ++cuts) {
      ASSERT_EQ(feed_in_pieces(strings, text, cuts), expected) << text << " cut at " << cuts;
    }
  };
  check("xabaxabax", {"xabaxabax", false});
  check("xaababxx", {"xa", true});
  check("abacabab", {"aba", true});
  check("xabcabx", {"x", true});  // cab is whole at the same time, and shorter
  check("abbabab", {"a", true});
  check("ababaaba", {"", true});
}

TEST(StopStrings, HoldsBackOnlyWhatMayBecomeAStop) {
  StopStrings stop({"\n\n", "END"});
  EXPECT_EQ(stop.feed("one\n"), "one");
  EXPECT_EQ(stop.feed("two"), "\ntwo");
  EXPECT_EQ(stop.feed(" E"), " ");
  EXPECT_EQ(stop.feed("N"), "");
  EXPECT_EQ(stop.feed("E"), "EN");
  EXPECT_EQ(stop.finish(), "E");
  EXPECT_FALSE(stop.found());
}

TEST(StopStrings, NothingComesAfterTheStop) {
  StopStrings stop({"END"});
  EXPECT_EQ(stop.feed("an ENDless"), "an ");
  EXPECT_TRUE(stop.found());
  EXPECT_EQ(stop.feed("more"), "");
  EXPECT_EQ(stop.finish(), "");
}

TEST(StopStrings, WithoutStringsEverythingPasses) {
  StopStrings stop({});
  EXPECT_EQ(stop.feed("text"), "text");
  EXPECT_FALSE(stop.found());
}

TEST(StopStrings, RefusesAnEmptyString) { EXPECT_THROW(StopStrings({"x", ""}), Error); }

}  // namespace
}  // namespace comba::generation
