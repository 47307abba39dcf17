//! From the first instruction to the loop, and from the loop to the end of the machine.
//!
//! As PID 1 nothing here may fail for good: what does not work is said loudly and left out (DEGRADED), and the device
//! still boots. Below another init a missing guard is a reason not to start.

use super::Config;
use super::command::Commands;
use super::conditions::Surroundings;
use super::control::Control;
use super::errand::Errands;
use super::event_loop::Lifeboat;
use super::incidents::Incidents;
use super::kill_log::KillLog;
use super::output::Outputs;
use super::parked::overhead_bytes;
use super::pressure;
use super::readiness::Notify;
use super::seat::{Pids, Seat, Source};
use super::sockets;
use super::steps;
use super::story::{self, Story};
use crate::cgroup::capabilities::Capabilities;
use crate::cgroup::tree::Tree;
use crate::engine::budget::{self, Refusal};
use crate::engine::event::{Event, ShutdownKind};
use crate::engine::policy::{UnitId, UnitPolicy};
use crate::engine::snapshot::{BudgetView, IncidentStore, SystemView};
use crate::engine::{Engine, Plan};
use crate::sys::error::SysError;
use crate::sys::poll::{Interest, Poller};
use crate::sys::signals::{self, Signals};
use crate::sys::spawn::{GO_FD, Program};
use crate::sys::{clock, console, epitaph, kmsg, memory, mount, power};
use crate::unit::{BootWish, Loaded, Wishes, enabled, is_instance, load_with, state_folder};
use crate::unit::{Identity, System, Unit};
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::ffi::CString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Each of sync and unmount at the end: a slow flash may need seconds for its dirty pages, a dead one never ends.
const FINAL_STEP_MS: u64 = 20_000;

/// The sync after a panic, and the reboot after that.
const EPITAPH_MS: u64 = 5_000;

/// Why lifeboat does not start below another init.
#[derive(Debug)]
pub enum StartError {
    /// A call to the kernel failed.
    Sys(SysError),
    /// The control socket cannot be made.
    Socket(SysError),
    /// Somebody listens on the control socket.
    SocketTaken(PathBuf),
    /// What lies in the control socket's place is no socket, and is not removed.
    NotASocket(PathBuf),
    /// The kernel lacks what guards memory.
    Degraded(Vec<String>),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sys(error) => error.fmt(f),
            Self::Socket(error) => write!(f, "{error} (--socket PATH names another place)"),
            Self::SocketTaken(path) => write!(
                f,
                "another lifeboat listens on {}: end that one, or give this one a socket of its own with --socket PATH",
                path.display()
            ),
            Self::NotASocket(path) => write!(
                f,
                "{} is there and is no socket: remove it, or name another place with --socket PATH",
                path.display()
            ),
            Self::Degraded(missing) => {
                f.write_str("memory cannot be guarded here")?;
                for line in missing {
                    write!(f, "\n  - {line}")?;
                }
                f.write_str("\nstart with --degraded to supervise without it")
            }
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Sys(error) | Self::Socket(error) => error.source(),
            Self::SocketTaken(_) | Self::NotASocket(_) | Self::Degraded(_) => None,
        }
    }
}

impl From<SysError> for StartError {
    fn from(error: SysError) -> Self {
        Self::Sys(error)
    }
}

/// Runs as PID 1 until the machine ends.
pub fn as_init(config: &Config) -> ! {
    let mut troubles: Vec<SysError> = console::ensure_standard_descriptors().err().into_iter().collect();
    // Before the mounts: people send signals very early, and PID 1 loses those that it has no handler for.
    let signals = Signals::install();
    signals::leave_faults_to_the_kernel();
    troubles.extend(mount::early_mounts());
    epitaph::install(epitaph::Epitaph {
        kmsg: kmsg::open_kmsg().ok(),
        console: console::open_console().ok(),
        reboot_after_ms: Some(EPITAPH_MS),
    });
    let (story, no_places) = Story::of_init();
    story.take_log();
    troubles.extend(no_places);
    log::info!("lifeboat {} as PID 1", env!("CARGO_PKG_VERSION"));
    troubles.extend(kmsg::quieten_kernel());
    troubles.extend(memory::raise_descriptor_limit().err());
    troubles.extend(power::take_ctrl_alt_del().err());
    for error in &troubles {
        story::complain(error);
    }
    let how =
        match signals.map_err(StartError::Sys).and_then(|signals| assemble(config, signals, story, true)) {
            Ok(mut lifeboat) => {
                let how = serve(&mut lifeboat);
                lifeboat.close_incidents();
                lifeboat.close_logs();
                how
            }
            Err(error) => {
                // No epoll, no pipe: there is nothing to supervise with. Saying so and starting afresh beats a machine
                // that hangs without a word.
                story::complain(&error);
                ShutdownKind::Reboot
            }
        };
    power::final_sequence(how, FINAL_STEP_MS, &mut |line| log::error!("{line}"))
}

/// Runs below another init, or in a container, until it is told to stop.
pub fn as_supervisor(config: &Config) -> Result<(), StartError> {
    console::ensure_standard_descriptors()?;
    let signals = Signals::install()?;
    let story = Story::of_supervisor()?;
    story.take_log();
    log::info!("lifeboat {} as a supervisor", env!("CARGO_PKG_VERSION"));
    for error in
        [memory::raise_descriptor_limit(), memory::become_subreaper()].into_iter().filter_map(Result::err)
    {
        story::complain(&error);
    }
    let mut lifeboat = assemble(config, signals, story, false)?;
    serve(&mut lifeboat);
    lifeboat.close_incidents();
    lifeboat.close_logs();
    lifeboat.control.remove_socket();
    lifeboat.notify.remove_socket();
    if lifeboat.tree.is_none() {
        // Without cgroups a service's daemons are found only now, as children of lifeboat.
        power::kill_children(&mut |line| log::error!("{line}"));
    }
    Ok(())
}

/// The loop comes back only with the engine's last action. An error of epoll itself leaves nothing to wait with; it is
/// told, and the wait is tried again at a slow pace, because PID 1 never exits.
fn serve(lifeboat: &mut Lifeboat) -> ShutdownKind {
    lifeboat.pump();
    lifeboat.tend_incidents();
    // What is allocated now stays, and the code of the start is needed no more.
    let let_go = [memory::drop_start_code(), memory::drop_start_stack()];
    for error in let_go.into_iter().chain([memory::lock()]).filter_map(Result::err) {
        story::complain(&error);
    }
    loop {
        match lifeboat.run() {
            Ok(how) => return how,
            Err(error) => {
                story::complain(&error);
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        }
    }
}

fn assemble(config: &Config, signals: Signals, story: Story, init: bool) -> Result<Lifeboat, StartError> {
    let poller = Poller::new()?;
    poller.add(signals.fd(), Source::Signals.token(), Interest::Read)?;
    let mut view = SystemView {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        started: clock::now(),
        ..SystemView::default()
    };
    let mut config = config.with_units_of_this_boot();
    let surroundings = Surroundings::look(init);
    let (units, rescue, boot) = find_units(&mut config, &surroundings, init, &mut view);
    let can_shield = shield(&mut view);
    let tree = prepare_tree(&config, &mut view);
    if !init && !config.degraded_is_fine && !view.degraded.is_empty() {
        return Err(StartError::Degraded(view.degraded));
    }
    for missing in &view.degraded {
        log::error!("DEGRADED: {missing}");
    }
    let control = match Control::open(&config.socket, &poller) {
        Ok(control) => control,
        Err(error) if init => {
            story::complain(&error);
            Control::closed()
        }
        Err(error) => return Err(error),
    };
    let null = console::open_null()?;
    let output = story.output_for_children().or_else(|_| console::open_null())?;
    let outputs = Outputs::new(&units, story.output_for_lines(), story.kernel_log_for_lines());
    let policies: Vec<UnitPolicy> = units.iter().map(|unit| unit.policy.clone()).collect();
    let names: Vec<String> = policies.iter().map(|policy| policy.name.clone()).collect();
    let notify = Notify::open(&notify_path(&config.socket), &config.cgroup_root, &poller);
    let seats: Vec<Seat> = units.into_iter().map(|unit| seat_of(unit, notify.path())).collect();
    let count = seats.len();
    let mut engine = Engine::new(policies, view.budget.reserve_bytes);
    engine.set_rescue(rescue);
    engine.set_room(view.budget.guaranteed_bytes, view.budget.pool_bytes);
    let mut events = VecDeque::with_capacity(4 * count + 64);
    events.push_back(Event::Boot);
    Ok(Lifeboat {
        engine,
        plan: Plan::for_units(count),
        events,
        seats,
        rescue: rescue.and_then(|unit| names.get(usize::from(unit.0)).cloned()),
        names,
        pids: Pids::with_capacity(2 * count),
        helpers: Vec::new(),
        kill_log: KillLog::open(),
        poller,
        signals,
        control,
        notify,
        story,
        outputs,
        tree,
        can_shield,
        surroundings,
        incidents: Incidents::new(view.incidents.clone()),
        system: view,
        null,
        output,
        config,
        wishes: Wishes { boot, instances: Vec::new() },
        errands: Errands::default(),
        next_reading: 0,
        ignored: 0,
        finished: None,
    })
}

/// The units as their files and people want them; not `system.ron`, which is read once.
pub(super) fn load_units(config: &Config, wishes: &Wishes) -> Loaded {
    load_all(config, None, wishes)
}

fn load_all(config: &Config, system: Option<&Path>, wishes: &Wishes) -> Loaded {
    let mut wishes = wishes.clone();
    // An instance that is started at boot exists for that.
    wishes
        .instances
        .extend(enabled::names(config.state_folder()).into_iter().filter(|name| is_instance(name)));
    let mut loaded = load_with(&config.unit_folders, system, &wishes);
    enabled::apply(config.state_folder(), &mut loaded.units);
    loaded
}

/// The units with their shares of memory, and the one for the rescue; what is wrong with any of them is told, and goes
/// into the view.
fn find_units(
    config: &mut Config,
    surroundings: &Surroundings,
    init: bool,
    view: &mut SystemView,
) -> (Vec<Unit>, Option<UnitId>, Option<BootWish>) {
    // Which instances there are rests on the folder that this names.
    config.state_folder = config.state_folder.take().or_else(|| state_folder(&config.system_file));
    let wishes = Wishes { boot: surroundings.boot().map(BootWish::of_the_kernel), instances: Vec::new() };
    let Loaded { mut units, system, faults, boots } = load_all(config, Some(&config.system_file), &wishes);
    view.faults.extend(faults.iter().map(ToString::to_string));
    if config.unit_folders.iter().all(|folder| !folder.exists()) {
        let folders: Vec<String> =
            config.unit_folders.iter().skip(1).map(|path| path.display().to_string()).collect();
        view.faults.push(format!(
            "there is no folder of units: {} does not exist; make it, or name another with --units FOLDER",
            folders.join(" or ")
        ));
    }
    // A lifeboat below another init keeps them where its user has said, and nowhere else.
    view.incidents = system.incidents.clone().or_else(|| init.then(IncidentStore::default));
    // Below another init the console is not ours.
    let rescue = if init { rescue_unit(&units, &system, view) } else { None };
    for fault in &view.faults {
        log::error!("{fault}");
    }
    if init {
        settle_in(&system);
    }
    for refusal in divide(&mut units, &system, surroundings.own_machine(), view) {
        log::error!("{refusal}");
        view.faults.push(refusal.to_string());
    }
    (units, rescue, boots)
}

/// The unit that is started where another one says `Rescue`; that there is none is a fault only where one says it.
fn rescue_unit(units: &[Unit], system: &System, view: &mut SystemView) -> Option<UnitId> {
    let name = system.rescue_name();
    let at = units.iter().position(|unit| unit.policy.name == name && unit.policy.refused.is_none());
    if let (None, Some(unit)) = (at, units.iter().find(|unit| unit.policy.calls_rescue())) {
        view.faults.push(format!(
            "{}: Rescue means Stop here: there is no sound unit `{name}`; add {name}.ron, or name another unit by \
             `rescue` in system.ron",
            unit.policy.name
        ));
    }
    at.and_then(|at| u16::try_from(at).ok()).map(UnitId)
}

/// The socket of sd_notify(3): beside the control socket, and never the same. It goes into the environment of services,
/// so it does not depend on a working directory.
fn notify_path(control: &Path) -> PathBuf {
    let path = control.with_extension("notify");
    let path = if path == control { control.with_extension("notify.notify") } else { path };
    std::path::absolute(&path).unwrap_or(path)
}

/// What system.ron says of the machine itself.
fn settle_in(system: &System) {
    if let Some(hostname) = &system.hostname
        && let Err(errno) = nix::unistd::sethostname(hostname)
    {
        story::complain(&SysError::new("set the host name to", hostname.clone(), errno));
    }
    for (name, value) in &system.sysctls {
        if let Err(error) = kmsg::write_sysctl(name, value) {
            story::complain(&error);
        }
    }
}

/// Divides the machine's memory; units that do not fit are refused before anything starts.
///
/// Files that live in memory are the image's own on a machine that has just started; elsewhere somebody else's.
fn divide(units: &mut [Unit], system: &System, own_machine: bool, view: &mut SystemView) -> Vec<Refusal> {
    let memory::Machine { total_bytes, files_bytes } = match memory::Machine::read() {
        Ok(machine) => machine,
        Err(error) => {
            story::complain(&error);
            return Vec::new();
        }
    };
    let mut policies: Vec<UnitPolicy> = units.iter().map(|unit| unit.policy.clone()).collect();
    let (budget, refusals) = budget::divide(
        total_bytes,
        system.reserve_bytes(total_bytes),
        system.margin_bytes(total_bytes, if own_machine { files_bytes } else { 0 }),
        overhead_bytes(&units.iter().collect::<Vec<_>>()),
        &mut policies,
    );
    for (unit, policy) in units.iter_mut().zip(policies) {
        unit.policy = policy;
    }
    view.budget = budget;
    log::info!("memory: {}", BudgetLine(budget));
    refusals
}

struct BudgetLine(BudgetView);

impl fmt::Display for BudgetLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        let BudgetView {
            total_bytes,
            margin_bytes,
            reserve_bytes,
            writeback_bytes,
            overhead_bytes,
            guaranteed_bytes,
            pool_bytes,
        } = self.0;
        write!(
            f,
            "{} MiB in all = {} margin + {} reserve + {} writeback + {} overhead + {} guaranteed + {} pool",
            mib(total_bytes),
            mib(margin_bytes),
            mib(reserve_bytes),
            mib(writeback_bytes),
            mib(overhead_bytes),
            mib(guaranteed_bytes),
            mib(pool_bytes)
        )
    }
}

/// Takes lifeboat itself out of the OOM killer's sight. Where it may not do that it cannot do it for services either.
fn shield(view: &mut SystemView) -> bool {
    let shielded = memory::shield_self();
    if let Err(error) = &shielded {
        story::complain(error);
        view.degraded.push(
            "lifeboat lacks the privilege CAP_SYS_RESOURCE: services run without a shield, and the kernel may choose \
             lifeboat itself when memory runs out; start it as root with that privilege (systemd: \
             AmbientCapabilities=CAP_SYS_RESOURCE), or give its units guard: Canary, which needs none"
                .into(),
        );
    }
    shielded.is_ok()
}

/// The tree of cgroups, as far as the kernel has what it takes; what is missing goes into the view.
fn prepare_tree(config: &Config, view: &mut SystemView) -> Option<Tree> {
    let capabilities = Capabilities::find(&config.cgroup_root).unwrap_or_else(|error| {
        story::complain(&error);
        Capabilities::default()
    });
    let missing = capabilities.missing();
    if !capabilities.cgroup2 {
        let place = config.cgroup_root.display();
        let with_place = |missing| format!("{missing}, or name its folder with --cgroup (now it is {place})");
        view.degraded.extend(missing.iter().map(with_place));
        return None;
    }
    view.degraded.extend(missing.iter().map(ToString::to_string));
    if capabilities.controllers.memory && view.budget.pool_bytes == 0 {
        view.degraded.push(
            "margin and reserve take all of the memory: nothing is left for units; lower them in system.ron"
                .into(),
        );
        return None;
    }
    match Tree::prepare(&config.cgroup_root, &view.budget, &capabilities) {
        Ok(tree) => Some(tree),
        Err(error) => {
            story::complain(&error);
            view.degraded.push(format!(
                "the tree of cgroups cannot be made: services run without limits; cure what failed: {error}"
            ));
            None
        }
    }
}

pub(super) fn seat_of(unit: Unit, notify_path: Option<&std::path::Path>) -> Seat {
    let environment_of = |identity: &Identity| {
        let mut environment = Environment::inherited();
        for pair in identity.environment.iter().chain(&unit.environment) {
            environment.set(pair.as_bytes());
        }
        environment
    };
    let mut environment = environment_of(&unit.identity);
    if let Some(path) = notify_path.filter(|_| unit.may_notify()) {
        environment.set(&[b"NOTIFY_SOCKET=", path.as_os_str().as_bytes()].concat());
    }
    if let Some(path) = notify_path.and_then(|path| pressure::fifo_of(path, &unit)) {
        environment.set(&[b"MEMORY_PRESSURE_WATCH=", path.as_os_str().as_bytes()].concat());
    }
    if let Some(ms) = unit.policy.watchdog_ms {
        environment.set(format!("WATCHDOG_USEC={}", u64::from(ms) * 1_000).as_bytes());
    }
    // A refused unit has no command; it is never started.
    let strings = environment.strings();
    let program = match sockets::room_for(&unit) {
        0 => Program::new(&unit.command, &strings),
        room => Program::listener(&unit.command, &strings, room),
    };
    let program = match unit.policy.watchdog_ms {
        Some(_) => program.map(Program::with_watchdog_pid).ok(),
        None => program.ok(),
    };
    let commands = commands_of(&unit, environment_of(&unit.identity));
    let procedure_programs = unit.policy.procedure.filter(|it| it.has_program).map(|policy| {
        let mut environment = environment_of(&unit.procedure_identity);
        environment.set(format!("LIFEBOAT_UNIT={}", unit.policy.name).as_bytes());
        let stored_max = usize::from(unit.policy.descriptors.store_max);
        let strings = environment.strings();
        let of = |command: &[CString]| Program::procedure(command, &strings, stored_max).ok();
        let otherwise = of(&unit.otherwise).map(Box::new);
        let first = if policy.resident {
            environment.set(format!("LIFEBOAT_GO_FD={GO_FD}").as_bytes());
            Program::new(&unit.procedure, &environment.strings()).ok()
        } else {
            of(&unit.procedure)
        };
        (first.map(|first| Box::new(first.with_second(unit.otherwise.first()))), otherwise)
    });
    let (procedure_program, otherwise_program) = procedure_programs.unwrap_or_default();
    let (steps, procedure_steps) = (steps::of_service(&unit), steps::of_procedure(&unit));
    let seat = Seat::of(unit, (program, procedure_program), (steps, procedure_steps), commands);
    Seat { otherwise_program, ..seat }
}

fn commands_of(unit: &Unit, mut environment: Environment) -> Commands {
    if !unit.has_commands() {
        return Commands::default();
    }
    environment.set(format!("LIFEBOAT_UNIT={}", unit.policy.name).as_bytes());
    let strings = environment.strings();
    Commands::new(steps::of_command(unit), |kind| Program::procedure(unit.command_of(kind), &strings, 0).ok())
}

/// What a supervisor tells one service about itself.
const OURS_ALONE: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
];

/// Names and values; a name that is set again gets the new value.
struct Environment(BTreeMap<Vec<u8>, Vec<u8>>);

impl Environment {
    /// lifeboat's own, with a `PATH` where there is none: the kernel gives PID 1 only `HOME` and `TERM`.
    fn inherited() -> Self {
        let mut strings = BTreeMap::new();
        // One by one: `collect` would bring a sort of its own.
        strings.extend(std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())));
        // What another supervisor said to lifeboat is not for its services.
        for name in OURS_ALONE {
            strings.remove(name.as_bytes());
        }
        strings.entry(b"PATH".to_vec()).or_insert_with(|| b"/usr/sbin:/usr/bin:/sbin:/bin".to_vec());
        Self(strings)
    }

    fn set(&mut self, pair: &[u8]) {
        let at = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(at);
        self.0.insert(name.to_vec(), value.get(1..).unwrap_or_default().to_vec());
    }

    fn strings(&self) -> Vec<CString> {
        self.0.iter().filter_map(|(name, value)| CString::new([&name[..], value].join(&b'=')).ok()).collect()
    }
}
