# What to build, and how every target is compiled. A project that adds this tree gets libcomba alone, and chooses the
# build type, the linker and the compiler's launcher itself.

option(COMBA_TORCH "Build the LibTorch floor, the models and the comba program" ${PROJECT_IS_TOP_LEVEL})
option(COMBA_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(COMBA_INSTALL "Install libcomba, and the program when it is built" ${PROJECT_IS_TOP_LEVEL})
set(COMBA_SANITIZE "" CACHE STRING "Sanitizer to build with: address, thread or empty")
set_property(CACHE COMBA_SANITIZE PROPERTY STRINGS "" address thread)

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release or RelWithDebInfo" FORCE)
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_SCAN_FOR_MODULES OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)

find_package(Threads REQUIRED)
# Highway's headers; its library is not linked.
find_path(COMBA_HIGHWAY_INCLUDE hwy/highway.h REQUIRED)
mark_as_advanced(COMBA_HIGHWAY_INCLUDE)

# gcc refuses a precompiled header made under another of -fPIC and -fPIE, so everything, programs included, is -fPIC.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fPIC>)

if(COMBA_SANITIZE STREQUAL "address")
  set(sanitizer_flags -fsanitize=address,undefined -fno-sanitize-recover=undefined)
elseif(COMBA_SANITIZE STREQUAL "thread")
  set(sanitizer_flags -fsanitize=thread)
elseif(COMBA_SANITIZE)
  message(FATAL_ERROR "COMBA_SANITIZE must be address, thread or empty; got '${COMBA_SANITIZE}'")
endif()
if(COMBA_SANITIZE)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${sanitizer_flags};-fno-omit-frame-pointer;-g>")
  add_link_options(${sanitizer_flags})
endif()

if(NOT PROJECT_IS_TOP_LEVEL)
  return()
endif()

find_program(COMBA_CCACHE ccache)
mark_as_advanced(COMBA_CCACHE)
if(COMBA_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Without this sloppiness ccache passes over every file that uses a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${COMBA_CCACHE})
endif()

# The fastest linker there is: LibTorch's libraries take GNU ld seconds a program.
include(CheckLinkerFlag)
foreach(linker mold lld)
  check_linker_flag(CXX -fuse-ld=${linker} COMBA_HAVE_${linker})
  if(COMBA_HAVE_${linker})
    add_link_options(-fuse-ld=${linker})
    break()
  endif()
endforeach()
