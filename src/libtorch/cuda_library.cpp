#include "libtorch/cuda_library.h"

#include <dlfcn.h>

#include "base/message.h"

namespace comba {
namespace {

/// Both are found as the libraries that this program was linked with.
void* load(const char* library) {
  void* handle = ::dlopen(library, RTLD_LAZY | RTLD_GLOBAL);
  require(handle != nullptr, ErrorCode::unsupported, "[device] a GPU needs ", library,
          ", and it cannot be loaded: ", handle == nullptr ? ::dlerror() : "");
  return handle;
}

void* own_library() {
  static void* const handle = [] {
    load("libtorch_cuda.so");
    return load("libcomba_cuda.so");
  }();
  return handle;
}

}  // namespace

void load_cuda() { own_library(); }

void* cuda_function(const char* name) {
  void* function = ::dlsym(own_library(), name);
  require(function != nullptr, ErrorCode::unsupported, "[device] libcomba_cuda.so must be of this build; it has no ",
          name);
  return function;
}

}  // namespace comba
