// Runs once when the page is there. Gradio gives: element, props, trigger(event), watch(name, callback), upload(file).
// States come as `props.value`; `training_fla/serving/translation.py` says what is in them.
const at = (id) => element.querySelector('#fla-' + id);
const maxBytes = Number(at('drop').dataset.maxBytes);
const maxSeconds = Number(at('drop').dataset.maxSeconds);
const video = at('video');
let clip = null; // the chosen File
let address = null; // of the clip in this browser, so that it can be watched after the server has deleted it
let job = null; // the translation that is waited for
let camera = null;
let recorder = null;
let shown = null; // the last state that was drawn
let playUntil = null;

const calm = matchMedia('(prefers-reduced-motion: reduce)');
const scrolling = () => (calm.matches ? 'auto' : 'smooth');
const show = (id, yes) => { at(id).hidden = !yes; };
const clock = (seconds) => Math.floor(seconds / 60) + ':' + String(Math.floor(seconds % 60)).padStart(2, '0');
const percent = (share) => Math.round(100 * share) + ' %';

function say(text, busy = false) {
  if (at('status').textContent !== text) at('status').textContent = text;
  at('status').classList.toggle('fla-busy', busy);
}

function fail(text) {
  at('error').textContent = text;
  if (text) say('');
}

function work(running) {
  show('progress', false);
  show('stop', running);
  show('clear', clip !== null && !running);
  show('choose', !running && camera === null);
  at('go').disabled = running || clip === null;
}

function forget() {
  if (address) URL.revokeObjectURL(address);
  clip = address = job = null;
  video.removeAttribute('src');
  video.load();
  show('stage', false);
  show('name', false);
  for (const id of ['result', 'seen', 'others']) show(id, false);
  at('file').value = '';
}

// The server checks all of this again; here it is said before anything is sent.
function choose(file) {
  forget();
  fail('');
  if (!file) return work(false);
  if (file.size > maxBytes) {
    fail('This file is ' + Math.round(file.size / 2 ** 20) + ' MB; ' + maxBytes / 2 ** 20 + ' MB is the most that is taken here.');
    return work(false);
  }
  clip = file;
  address = URL.createObjectURL(file);
  video.srcObject = null;
  video.classList.remove('fla-mirrored');
  video.controls = true;
  video.src = address;
  at('name').textContent = file.name;
  show('name', true);
  say('Ready to translate.');
  work(false);
}

video.addEventListener('loadedmetadata', () => {
  if (!clip) return;
  show('stage', true);
  if (Number.isFinite(video.duration) && video.duration > maxSeconds + 0.5) {
    const long = video.duration;
    forget();
    work(false);
    fail('This clip is longer than ' + maxSeconds + ' seconds, the most that is taken here: it lasts ' + clock(Math.round(long)) + '. Cut out the sentence you want translated.');
  }
});
video.addEventListener('error', () => {
  if (!clip) return;
  show('stage', false);
  at('name').textContent = clip.name + ' (this browser cannot show it; it can be sent all the same)';
});
video.addEventListener('timeupdate', () => {
  if (playUntil !== null && video.currentTime >= playUntil) {
    video.pause();
    playUntil = null;
  }
});

at('file').addEventListener('change', (event) => choose(event.target.files[0]));
at('clear').addEventListener('click', () => { choose(null); say('The clip was removed.'); at('file').focus(); });
for (const name of ['dragover', 'dragleave', 'drop']) {
  at('drop').addEventListener(name, (event) => {
    event.preventDefault();
    at('drop').classList.toggle('fla-over', name === 'dragover');
    if (name === 'drop' && job === null && camera === null && event.dataTransfer.files[0]) choose(event.dataTransfer.files[0]);
  });
}

// Recording.
const canRecord = Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
if (!canRecord) show('camera', false); // browsers lend the camera to https and localhost only

function cameraOff() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = recorder = null;
  video.srcObject = null;
  show('recording', false);
  show('limits', true);
  at('timer').textContent = '';
}

at('camera').addEventListener('click', async () => {
  choose(null);
  try {
    camera = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 25 }, facingMode: 'user' },
    });
  } catch (error) {
    return fail('The camera cannot be used: ' + error.message + '.');
  }
  video.controls = false;
  video.classList.add('fla-mirrored'); // what is seen, as in a mirror; what is recorded is not turned round
  video.srcObject = camera;
  video.play();
  show('stage', true);
  show('choose', false);
  show('limits', false);
  show('recording', true);
  at('record').textContent = 'Start recording';
  at('record').classList.remove('fla-on');
  at('record').focus();
  say('The camera is on.');
});

at('camera-off').addEventListener('click', () => {
  const running = recorder;
  if (running) running.ondataavailable = running.onstop = null;
  if (running?.state === 'recording') running.stop();
  cameraOff();
  choose(null);
  at('camera').focus();
});

at('record').addEventListener('click', () => {
  if (recorder) return recorder.stop();
  const type = ['video/webm;codecs=vp8', 'video/webm', 'video/mp4'].find((name) => MediaRecorder.isTypeSupported(name));
  const pieces = [];
  recorder = new MediaRecorder(camera, { mimeType: type, videoBitsPerSecond: 2500000 });
  recorder.ondataavailable = (event) => pieces.push(event.data);
  recorder.onstop = () => {
    cameraOff();
    const ending = type.includes('webm') ? 'webm' : 'mp4';
    choose(new File(pieces, 'recording.' + ending, { type: type.split(';')[0] }));
    at('go').focus();
  };
  recorder.start();
  at('record').textContent = 'Stop recording';
  at('record').classList.add('fla-on');
  say('Recording. It stops by itself after ' + maxSeconds + ' seconds.');
  const started = performance.now();
  const mine = recorder;
  const tick = () => {
    if (recorder !== mine || mine.state !== 'recording') return;
    const seconds = (performance.now() - started) / 1000;
    at('timer').textContent = clock(seconds) + ' of ' + clock(maxSeconds);
    if (seconds >= maxSeconds) mine.stop();
    else setTimeout(tick, 100);
  };
  tick();
});

// What a server or a proxy in front of it answered, which may be a page of HTML, as one sentence.
function sendingError(message) {
  const status = Number((message.match(/HTTP (\d{3})/) || [])[1]);
  if (status === 413) return 'This file is larger than what is taken here. Send a shorter clip.';
  if (status === 401 || status === 403) return 'This server does not let you send clips.';
  if (status === 404 || status === 405) return 'The clip could not be sent: the server has no such address. Whoever runs this page has to set --root-path.';
  if (status >= 500) return 'The server cannot be reached at the moment. Try again in a minute.';
  return 'The clip could not be sent' + (status ? ': the server refused it (' + status + ').' : '. Check your connection and try again.');
}

// Translating.
function randomName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

at('go').addEventListener('click', async () => {
  const mine = job = randomName();
  fail('');
  shown = null;
  for (const id of ['result', 'seen', 'others']) show(id, false);
  work(true);
  at('stop').focus();
  say('Sending the clip …', true);
  const ending = (clip.name.match(/\.[A-Za-z0-9]{1,5}$/) || [''])[0];
  try {
    // The file's own name is not sent.
    const { path } = await upload(new File([clip], mine + ending, { type: clip.type }));
    if (job !== mine) return;
    say('Waiting for its turn …', true);
    props.value = { path, job: mine, language: at('language').value || null };
    trigger('submit');
  } catch (error) {
    if (job === mine) finish(sendingError(error.message));
  }
});

at('stop').addEventListener('click', () => {
  trigger('cancel');
  finish('');
  say('Stopped.');
});

function finish(error) {
  const hadFocus = document.activeElement === at('stop');
  job = null;
  work(false);
  fail(error);
  if (hadFocus) at('go').focus({ preventScroll: true });
}

window.flaFailed = () => {
  if (job) finish('The server did not take the clip: too many are waiting, or it cannot be reached. Try again in a minute.');
};

watch('value', () => {
  const state = props.value;
  if (!state || !state.stage || state.job !== job) return;
  if (state.stage === 'refused') return finish(state.message);
  say(state.message, state.stage !== 'done');
  show('progress', state.progress !== undefined);
  at('progress').value = state.progress || 0;
  if (state.frames && !shown?.frames) drawFrames(state);
  if (state.sentence !== undefined) drawSentence(state);
  if (state.stage === 'done') {
    drawWords(state);
    drawAlternatives(state);
    finish('');
    say(state.message);
    // Heard where the sentence itself is not seen to appear.
    if (state.sentence) at('status').append(make('span', ' Translation: ' + state.sentence, 'fla-heard'));
    at('result').scrollIntoView({ block: 'nearest', behavior: scrolling() });
  }
  shown = state;
});

function make(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function drawFrames(state) {
  show('seen', true);
  show('attention', false);
  at('seen-hint').textContent = state.clip.sampled + ' of the clip’s ' + state.clip.source + ' frames (' + state.clip.seconds.toFixed(1) + ' seconds), cropped as the model sees them.';
  at('frames').replaceChildren(...state.frames.map((frame) => {
    const item = make('li');
    const picture = make('img');
    picture.src = frame.image;
    picture.alt = '';
    item.append(make('i'), picture, frame.seconds.toFixed(2) + ' s');
    return item;
  }));
  at('strip').scrollLeft = 0;
}

function drawSentence(state) {
  show('result', true);
  at('sentence').textContent = state.sentence;
  at('sentence').classList.toggle('fla-draft', state.is_draft);
  if (state.language) at('sentence').lang = state.language;
  if (state.is_draft) {
    at('score').textContent = state.num_beams > 1 ? 'First draft, written word by word (greedy search). The search over ' + state.num_beams + ' beams follows and may change it.' : 'Written word by word (greedy search).';
  } else {
    at('score').textContent = 'Mean probability of its word pieces: ' + percent(state.score) + ' (geometric mean). It says how sure the model is, not how right.';
  }
}

function drawWords(state) {
  show('attention', state.words.length > 0);
  show('plays', !at('stage').hidden);
  at('words').replaceChildren(...state.words.map((word, number) => {
    const item = make('li');
    const button = make('button', word.text, 'fla-button fla-word');
    button.type = 'button';
    button.setAttribute('aria-pressed', 'false');
    if (state.language) button.lang = state.language;
    const when = make('span', word.from.toFixed(2) + ' to ' + word.to.toFixed(2) + ' s, ' + percent(word.share), 'fla-when');
    when.id = 'fla-when-' + number;
    button.setAttribute('aria-describedby', when.id);
    button.addEventListener('click', () => pick(button, word));
    item.append(button, bars(word), when);
    return item;
  }));
}

function bars(word) {
  const space = 'http://www.w3.org/2000/svg';
  const picture = document.createElementNS(space, 'svg');
  picture.setAttribute('viewBox', '0 0 ' + word.weights.length + ' 1');
  picture.setAttribute('preserveAspectRatio', 'none');
  picture.setAttribute('aria-hidden', 'true');
  word.weights.forEach((weight, position) => {
    const bar = document.createElementNS(space, 'rect');
    for (const [name, value] of [['x', position + 0.08], ['y', 1 - weight], ['width', 0.84], ['height', weight]]) bar.setAttribute(name, value);
    if (position >= word.first && position <= word.last) bar.setAttribute('class', 'fla-meant');
    picture.append(bar);
  });
  return picture;
}

function pick(button, word) {
  const off = button.getAttribute('aria-pressed') === 'true';
  at('words').querySelectorAll('button').forEach((other) => other.setAttribute('aria-pressed', String(other === button && !off)));
  const items = [...at('frames').children];
  items.forEach((item, position) => {
    item.classList.toggle('fla-meant', !off && position >= word.first && position <= word.last);
    item.firstChild.style.setProperty('--weight', off ? '0%' : percent(word.weights[position]).replace(' ', ''));
  });
  video.pause();
  playUntil = null;
  if (off) return;
  const strip = at('strip');
  const middle = (items[word.first].offsetLeft + items[word.last].offsetLeft + items[word.last].offsetWidth) / 2;
  strip.scrollTo({ left: middle - strip.clientWidth / 2, behavior: scrolling() });
  if (!at('stage').hidden) {
    video.currentTime = word.from;
    playUntil = word.to;
    video.play().catch(() => {});
  }
}

function drawAlternatives(state) {
  show('others', state.num_beams > 1);
  at('others-hint').textContent = state.alternatives.length ? 'What else the beam search found, best first, each with the mean probability of its word pieces.' : 'All ' + state.num_beams + ' beams ended in the same sentence.';
  at('alternatives').replaceChildren(...state.alternatives.map((other) => {
    const item = make('li');
    const text = make('span', other.text);
    if (state.language) text.lang = state.language;
    item.append(text, make('span', percent(other.score)));
    return item;
  }));
}

show('languages', at('language').options.length > 1);
say('');
work(false);
