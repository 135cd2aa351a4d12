# The library without a framework as one target, comba::comba, and what `make install` copies: that library with its
# headers and CMake package, and the program.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(comba $<TARGET_OBJECTS:comba_base> $<TARGET_OBJECTS:comba_runtime> $<TARGET_OBJECTS:comba_operators>)
add_library(comba::comba ALIAS comba)
set_target_properties(comba PROPERTIES LINKER_LANGUAGE CXX)
target_compile_features(comba INTERFACE cxx_std_20)
target_include_directories(comba INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                           $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(comba PRIVATE Threads::Threads)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/comba)
file(CONFIGURE OUTPUT comba-config.cmake CONTENT [[
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/comba-targets.cmake)
]] @ONLY)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/comba-config-version.cmake COMPATIBILITY SameMinorVersion)
install(TARGETS comba EXPORT comba-targets)
install(EXPORT comba-targets NAMESPACE comba:: DESTINATION ${package_dir})
install(FILES ${PROJECT_BINARY_DIR}/comba-config.cmake ${PROJECT_BINARY_DIR}/comba-config-version.cmake
        DESTINATION ${package_dir})
install(DIRECTORY include/comba DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET comba_cli)
  install(TARGETS comba_cli)
endif()
