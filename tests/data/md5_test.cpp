#include "data/md5.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>

namespace comba::data {
namespace {

TEST(Md5, GivesTheDigestsOfTheRfc) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "d41d8cd98f00b204e9800998ecf8427e"},
      {"a", "0cc175b9c0f1b6a831c399e269772661"},
      {"abc", "900150983cd24fb0d6963f7d28e17f72"},
      {"message digest", "f96b697d7cb7938d525a2f31aaf161d0"},
      {"abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"},
      {"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"},
      {"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
       "57edf4a22be3c955ac49da2e2107b67a"},
  };
  for (const auto& [text, digest] : cases) EXPECT_EQ(to_hex(md5(text)), digest) << '"' << text << '"';
}

TEST(Md5, DoesNotDependOnThePieces) {
  const std::string text(1000000, 'a');
  Md5 hash;
  std::size_t piece = 1;
  for (std::size_t position = 0; position < text.size(); position += piece) {
    piece = std::min((piece * 7 + 3) % 331 + 1, text.size() - position);
    hash.update(text.data() + position, piece);
  }
  EXPECT_EQ(to_hex(hash.finish()), "7707d6ae4e027c70eea2a935c2296f21");
}

// Each length around a block's end takes another path through the padding. The digests were computed by md5sum.
TEST(Md5, PadsEveryLength) {
  const std::pair<int, const char*> cases[] = {
      {55, "04364420e25c512fd958a70738aa8f72"},  {56, "668a72d5ba17f08e62dabcafad6db14b"},
      {57, "693037871c4a9d3d8685018905cb530a"},  {63, "7dc2ca208106a2f703567bdff99d8981"},
      {64, "c1bb4f81d892b2d57947682aeb252456"},  {65, "1bc932052302d074bdec39795fe00cf6"},
      {119, "ab347a5f68c8a443cfcddc633f12c24f"}, {120, "fb98667f98096de92620b64f46e1c5b5"},
      {128, "d69cb61a6ee87200676eb0d4b90edbcb"},
  };
  for (const auto& [size, digest] : cases) EXPECT_EQ(to_hex(md5(std::string(size, 'x'))), digest) << size;
}

}  // namespace
}  // namespace comba::data
