# What `make install` copies: libcomba with its headers, its CMake package and its pkg-config file, the operators for
# PyTorch, and the program.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

target_include_directories(comba INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
install(TARGETS comba EXPORT comba-targets)
install(DIRECTORY include/comba DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET comba_torch)
  install(TARGETS comba_torch)
  install(FILES ${PROJECT_BINARY_DIR}/lib/libcomba_torch.json DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
if(TARGET comba_cuda)
  install(TARGETS comba_cuda)
endif()
if(TARGET comba_cli)
  install(TARGETS comba_cli)
  # Completions: the program writes them itself, so they are made when it is installed.
  set(completion_bash ${CMAKE_INSTALL_DATADIR}/bash-completion/completions comba)
  set(completion_zsh ${CMAKE_INSTALL_DATADIR}/zsh/site-functions _comba)
  set(completion_fish ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d comba.fish)
  foreach(shell IN ITEMS bash zsh fish)
    list(GET completion_${shell} 0 folder)
    list(GET completion_${shell} 1 name)
    set(script ${PROJECT_BINARY_DIR}/completion/${name})
    install(CODE "file(MAKE_DIRECTORY \"${PROJECT_BINARY_DIR}/completion\")
                  execute_process(COMMAND \"$<TARGET_FILE:comba_cli>\" completion ${shell}
                                  OUTPUT_FILE \"${script}\" COMMAND_ERROR_IS_FATAL ANY)")
    install(FILES ${script} DESTINATION ${folder})
  endforeach()
endif()

# find_package(comba)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/comba)
set(comba_dependencies Threads)
if(COMBA_CUDA)
  list(APPEND comba_dependencies CUDAToolkit)
endif()
list(JOIN comba_dependencies " " comba_dependencies)
file(CONFIGURE OUTPUT comba-config.cmake CONTENT [[
include(CMakeFindDependencyMacro)
foreach(dependency IN ITEMS @comba_dependencies@)
  find_dependency(${dependency})
endforeach()
include(${CMAKE_CURRENT_LIST_DIR}/comba-targets.cmake)
]] @ONLY)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/comba-config-version.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT comba-targets NAMESPACE comba:: DESTINATION ${package_dir})
install(FILES ${PROJECT_BINARY_DIR}/comba-config.cmake ${PROJECT_BINARY_DIR}/comba-config-version.cmake
        DESTINATION ${package_dir})

# pkg-config comba. Every path starts at the file itself, so that an installed tree may be moved.
set(pc_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig
           OUTPUT_VARIABLE pc_to_prefix)
set(pc_includedir "\${prefix}")
cmake_path(APPEND pc_includedir ${CMAKE_INSTALL_INCLUDEDIR})
set(pc_libdir "\${prefix}")
cmake_path(APPEND pc_libdir ${CMAKE_INSTALL_LIBDIR})
list(TRANSFORM comba_runtime_libraries PREPEND -l OUTPUT_VARIABLE pc_private)
list(JOIN pc_private " " pc_private)
set(pc_cuda "")
if(COMBA_CUDA AND comba_type STREQUAL STATIC_LIBRARY)
  set(pc_cuda "-L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -lrt -ldl -pthread")
endif()
file(CONFIGURE OUTPUT comba.pc CONTENT [[
prefix=${pcfiledir}/@pc_to_prefix@
includedir=@pc_includedir@
libdir=@pc_libdir@

Name: comba
Description: @PROJECT_DESCRIPTION@
Version: @PROJECT_VERSION@
Cflags: -I${includedir}
Libs: -L${libdir} -lcomba @pc_cuda@
Libs.private: @pc_private@ -pthread
]] @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/comba.pc DESTINATION ${pc_dir})
