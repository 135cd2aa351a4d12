#pragma once

#include <string>

namespace CLI {
class App;
}

/// Scripts that complete a command line of this program, made from its parser: what the parser knows is completed.
///
/// Offered are the sub-commands and flags of the command typed so far, and what a flag or argument takes, by its type
/// name: FILE and PATH files, DIR directories, words in small letters (`train|heldout`) themselves.
namespace comba::cli {

/// For bash 4 and later, to be read by `source` or found in share/bash-completion/completions.
std::string bash_completion(const CLI::App& program);

/// For zsh, to be read by `source` or found as _comba in a folder of $fpath.
std::string zsh_completion(const CLI::App& program);

/// For fish 3 and later, to be read by `source` or found in share/fish/vendor_completions.d.
std::string fish_completion(const CLI::App& program);

}  // namespace comba::cli
