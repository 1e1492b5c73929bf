# cmake --install: a tree that may be moved. find_package(onceover) gives onceover::shared and onceover::static.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set_target_properties(onceover PROPERTIES EXPORT_NAME shared VERSION ${PROJECT_VERSION} SOVERSION ${ONCEOVER_ABI_VERSION})
set_target_properties(onceover_static PROPERTIES EXPORT_NAME static)
set_target_properties(onceover-run PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
install(TARGETS onceover onceover_static onceover-run EXPORT onceover-targets
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(config_folder ${CMAKE_INSTALL_LIBDIR}/cmake/onceover)
install(EXPORT onceover-targets NAMESPACE onceover:: DESTINATION ${config_folder})
configure_package_config_file(cmake/onceover-config.cmake.in onceover-config.cmake INSTALL_DESTINATION ${config_folder})
# Before 1.0 any minor version may change the API.
write_basic_package_version_file(onceover-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/onceover-config.cmake"
        "${CMAKE_CURRENT_BINARY_DIR}/onceover-config-version.cmake" DESTINATION ${config_folder})

file(RELATIVE_PATH UP_TO_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")  # Debian has lib/x86_64-linux-gnu
configure_file(cmake/onceover.pc.in onceover.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/onceover.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
