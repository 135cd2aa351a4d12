# libcomba, the library without a framework, as one target: comba::comba. Static, or shared with BUILD_SHARED_LIBS=ON.

if(PROJECT_IS_TOP_LEVEL)
  option(BUILD_SHARED_LIBS "Build libcomba as a shared library" OFF)
endif()

add_library(comba $<TARGET_OBJECTS:comba_base> $<TARGET_OBJECTS:comba_runtime> $<TARGET_OBJECTS:comba_operators>)
add_library(comba::comba ALIAS comba)
# A 0.x release may break what an earlier minor version promised.
set_target_properties(comba PROPERTIES LINKER_LANGUAGE CXX VERSION ${PROJECT_VERSION}
                                       SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
target_compile_features(comba INTERFACE cxx_std_20)
target_include_directories(comba INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
target_link_libraries(comba PRIVATE Threads::Threads)
# What a C compiler does not link by itself.
set(comba_runtime_libraries stdc++ m)
if(COMBA_CUDA)
  # What is compiled for one architecture is no source of comba_operators, so it is not among its objects.
  target_sources(comba PRIVATE $<TARGET_OBJECTS:comba_operators_sm90>)
  target_link_libraries(comba PRIVATE CUDA::cudart_static)
endif()

get_target_property(comba_type comba TYPE)
if(comba_type STREQUAL SHARED_LIBRARY)
  set(comba_exports ${PROJECT_SOURCE_DIR}/cmake/libcomba.map)
  target_link_options(comba PRIVATE LINKER:--version-script=${comba_exports})
  set_target_properties(comba PROPERTIES LINK_DEPENDS ${comba_exports})
else()
  target_link_libraries(comba INTERFACE "$<$<LINK_LANGUAGE:C>:${comba_runtime_libraries}>")
endif()
