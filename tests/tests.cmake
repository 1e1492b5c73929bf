# What csrc/CMakeLists.txt builds and runs with -DONCEOVER_BUILD_TESTS=ON; paths are seen from csrc.
enable_testing()
# Kernels whose instructions this machine may lack, spelled out in others (tests/kernel_tables.h).
foreach(isa avxvnni amx)
  add_library(emulated_${isa} OBJECT kernels/${isa}.cpp)
  target_link_libraries(emulated_${isa} PRIVATE onceover_options)
  target_compile_definitions(emulated_${isa} PRIVATE ${isa}_kernels=emulated_${isa}_kernels)
endforeach()
target_compile_definitions(emulated_avxvnni PRIVATE ONCEOVER_AVXVNNI_BY_AVX512)
target_compile_definitions(emulated_amx PRIVATE
  ONCEOVER_AMX_EMULATION="${CMAKE_CURRENT_SOURCE_DIR}/../tests/amx_emulation.h")
foreach(test adaptation corrections compaction compaction_failures product_corrections product_compaction json_text image nv12 map_regions kernels coreset
        memory_bank metrics package package_members package_saving onnx_content engines session monitor tiling roi
        position_weights products streaming_coreset parallel recalibration)
  add_executable(test_${test} ../tests/test_${test}.cpp)
  target_link_libraries(test_${test} PRIVATE onceover_compaction onceover_session onceover_metrics onceover_monitor
                        emulated_avxvnni emulated_amx)
  add_test(NAME ${test} COMMAND test_${test})
endforeach()

# Nothing of these depends on the CPU: no kernel, no arithmetic but of whole numbers. `make test-arm` runs them once.
set_tests_properties(json_text onnx_content package package_members package_saving PROPERTIES LABELS any_cpu)

add_executable(test_measuring ../tests/test_measuring.cpp)
target_link_libraries(test_measuring PRIVATE onceover_measuring onceover_base)
add_test(NAME measuring COMMAND test_measuring)

# The C ABI, called from C99.
enable_language(C)
set(HEADERS "${CMAKE_CURRENT_SOURCE_DIR}/include/onceover.h" "${CMAKE_CURRENT_SOURCE_DIR}/include/onceover_memory_bank.h"
    "${CMAKE_CURRENT_SOURCE_DIR}/include/onceover_metrics.h" "${CMAKE_CURRENT_SOURCE_DIR}/include/onceover_monitor.h")
set(WITHOUT_PROGRAM "${CMAKE_CURRENT_SOURCE_DIR}/include/onceover_corrections.h")
foreach(header ${HEADERS})  # the program in the comment of each
  get_filename_component(name "${header}" NAME_WE)
  string(REPLACE onceover c_api name "${name}")
  set(example "${CMAKE_CURRENT_BINARY_DIR}/test_${name}_example.c")
  add_custom_command(OUTPUT "${example}" DEPENDS "${header}" VERBATIM
                     COMMAND sed -n "/^ \\* For every/q; s|^ \\*   ||p" "${header}" > "${example}")
  add_executable(test_${name}_example "${example}")
endforeach()
set(C_SESSION_TESTS c_api_session c_api_session_refusals c_api_bits c_api_allocations c_api_system_calls
    c_api_threads c_api_closing c_api_corrections c_api_product_corrections)
set(C_TESTS c_api c_api_refusals c_api_metrics c_api_metrics_refusals c_api_monitor)
foreach(test ${C_TESTS} ${C_SESSION_TESTS})
  add_executable(test_${test} ../tests/test_${test}.c)
endforeach()
add_executable(host_package ../tests/host_package.cpp)  # writes what the tests of sessions open
target_link_libraries(host_package PRIVATE onceover_session)
set(HOST_PACKAGE "${CMAKE_CURRENT_BINARY_DIR}/host.onceover")
add_test(NAME host_package COMMAND host_package "${HOST_PACKAGE}")
set_tests_properties(host_package PROPERTIES FIXTURES_SETUP host_package)
foreach(test ${C_TESTS} ${C_SESSION_TESTS} c_api_memory_bank_example c_api_metrics_example c_api_monitor_example)
  target_link_libraries(test_${test} PRIVATE onceover_options)
  target_compile_options(test_${test} PRIVATE -pedantic -Wall -Wextra -Werror)
  set_target_properties(test_${test} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
endforeach()
add_executable(session_latency ../tests/session_latency.c)  # run by tests/test_c_latency.py, without a pass or fail
target_link_libraries(session_latency PRIVATE onceover onceover_options)
set_target_properties(session_latency PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
foreach(test ${C_TESTS} c_api_memory_bank_example c_api_metrics_example c_api_monitor_example)
  add_test(NAME ${test} COMMAND test_${test} $<TARGET_FILE:onceover>)
endforeach()
foreach(test ${C_SESSION_TESTS})
  if(test STREQUAL "c_api_closing")  # opens the library itself
    add_test(NAME ${test} COMMAND test_${test} $<TARGET_FILE:onceover> "${HOST_PACKAGE}")
  else()
    target_link_libraries(test_${test} PRIVATE onceover m)
    add_test(NAME ${test} COMMAND test_${test} "${HOST_PACKAGE}")
  endif()
  set_tests_properties(${test} PROPERTIES FIXTURES_REQUIRED host_package)
endforeach()
target_link_libraries(test_c_api PRIVATE onceover m)
target_link_libraries(test_c_api_refusals PRIVATE onceover)
target_link_libraries(test_c_api_metrics PRIVATE onceover m)
target_link_libraries(test_c_api_metrics_refusals PRIVATE onceover)
target_link_libraries(test_c_api_monitor PRIVATE onceover m)
target_link_libraries(test_c_api_example PRIVATE onceover_static onceover_options)
target_link_libraries(test_c_api_memory_bank_example PRIVATE onceover_static)
target_link_libraries(test_c_api_metrics_example PRIVATE onceover_static)
target_link_libraries(test_c_api_monitor_example PRIVATE onceover_static)
if(ONCEOVER_SANITIZE)
  target_compile_definitions(test_c_api_closing PRIVATE SANITIZED)
  target_compile_definitions(test_c_api_system_calls PRIVATE SANITIZED)
else()
  foreach(test c_api c_api_allocations c_api_monitor c_api_corrections c_api_product_corrections)
    target_compile_definitions(test_${test} PRIVATE COUNT_ALLOCATIONS)  # sanitizers bring a malloc of their own
  endforeach()
endif()
add_dependencies(test_c_api test_c_api_refusals test_c_api_closing test_c_api_memory_bank_example test_c_api_metrics
                 test_c_api_metrics_refusals test_c_api_metrics_example test_c_api_monitor test_c_api_monitor_example)
add_dependencies(test_c_api_closing onceover)
set_tests_properties(c_api_memory_bank_example PROPERTIES PASS_REGULAR_EXPRESSION "row 1 is 1 away")
set_tests_properties(c_api_metrics_example PROPERTIES PASS_REGULAR_EXPRESSION "AUPRO 0.8333, AUROC 0.9667")
set_tests_properties(c_api_monitor_example PROPERTIES PASS_REGULAR_EXPRESSION "look at the light")
add_test(NAME c_api_exports COMMAND sh "${CMAKE_CURRENT_SOURCE_DIR}/../tests/c_api_exports.sh"
                                    "${CMAKE_NM}" $<TARGET_FILE:onceover> ${HEADERS} ${WITHOUT_PROGRAM})

# The C++ face of the C ABI beside the core's own answers: over the shared library, and in one program with the core.
foreach(library onceover onceover_static)
  foreach(face cpp_api cpp_api_line cpp_api_metrics cpp_api_memory_bank)
    string(REPLACE onceover ${face} test ${library})
    add_executable(test_${test} ../tests/test_${face}.cpp)
    target_link_libraries(test_${test} PRIVATE ${library} onceover_session onceover_metrics)
  endforeach()
  string(REPLACE onceover "" kind ${library})
  foreach(face cpp_api cpp_api_line)
    add_test(NAME ${face}${kind} COMMAND test_${face}${kind} "${HOST_PACKAGE}")
    set_tests_properties(${face}${kind} PROPERTIES FIXTURES_REQUIRED host_package)
  endforeach()
  foreach(face cpp_api_metrics cpp_api_memory_bank)
    add_test(NAME ${face}${kind} COMMAND test_${face}${kind})
  endforeach()
endforeach()
