# deltapush from this checkout, with manual pages and completions.
{
  lib,
  rustPlatform,
  installShellFiles,
}:
rustPlatform.buildRustPackage {
  pname = "deltapush";
  version = (lib.importTOML ../../Cargo.toml).package.version;
  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;
  nativeBuildInputs = [ installShellFiles ];
  # The integration tests start mail servers of Debian.
  cargoTestFlags = [ "--lib" ];
  postInstall = ''
    installManPage contrib/man/*.1
    installShellCompletion --bash contrib/completions/deltapush.bash
    installShellCompletion --fish contrib/completions/deltapush.fish
    installShellCompletion --zsh contrib/completions/_deltapush
    install -D -m 644 contrib/systemd/deltapush.service $out/lib/systemd/system/deltapush.service
    substituteInPlace $out/lib/systemd/system/deltapush.service \
      --replace-fail /usr/local/bin/deltapush $out/bin/deltapush
  '';
  meta = {
    description = "Push notifications for Delta Chat on any IMAP server";
    license = [
      lib.licenses.mit
      lib.licenses.asl20
    ];
    mainProgram = "deltapush";
    platforms = lib.platforms.linux;
  };
}
