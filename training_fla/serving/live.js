// Runs once when the tab is there. Gradio gives: element, server.caption(request); `training_fla/serving/live.py` says what is in both.
const at = (id) => element.querySelector('#fla-live-' + id);
const perSecond = Number(element.querySelector('#fla-live').dataset.picturesASecond);
const mostWaiting = Math.round(4 * perSecond); // four seconds; a picture that comes while so many wait is dropped
const atOnce = 8; // of a request
const height = 256; // of a picture
const video = at('video');
const canvas = document.createElement('canvas');
let camera = null;
let timer = null;
let began = 0;
let waiting = [];
let dropped = 0;
let visitor = null;
let sending = false;

const clock = (seconds) => Math.floor(seconds / 60) + ':' + String(Math.floor(seconds % 60)).padStart(2, '0');

function say(text) {
  if (at('status').textContent !== text) at('status').textContent = text;
}

function fail(text) {
  at('error').textContent = text;
  if (text) say('');
}

function show(running) {
  at('stage').hidden = !running;
  at('start').hidden = running;
  at('stop').hidden = !running;
}

function takePicture() {
  if (video.offsetParent === null) return stop(); // another tab of the page is shown
  if (!video.videoWidth) return;
  if (waiting.length >= mostWaiting) {
    dropped += 1;
    at('dropped').textContent = dropped + ' pictures came faster than the server takes them and were dropped.';
    return;
  }
  canvas.width = Math.round((height * video.videoWidth) / video.videoHeight);
  canvas.height = height;
  canvas.getContext('2d').drawImage(video, 0, 0, canvas.width, canvas.height);
  waiting.push({ at: (performance.now() - began) / 1000, jpeg: canvas.toDataURL('image/jpeg', 0.9).split(',')[1] });
  send();
}

async function send() {
  if (sending || visitor === null) return;
  sending = true;
  const mine = visitor;
  try {
    while (visitor === mine && waiting.length) {
      const pictures = waiting.splice(0, atOnce);
      draw(mine, await server.caption({ visitor: mine, pictures, is_behind: waiting.length > atOnce }));
    }
  } catch (error) {
    if (visitor === mine) lose('The server cannot be reached.');
  } finally {
    sending = false;
  }
}

function draw(mine, answer) {
  if (answer.refused) return visitor === mine ? lose(answer.refused) : undefined;
  for (const caption of answer.captions) {
    const item = document.createElement('p');
    const when = document.createElement('span');
    when.className = 'fla-when';
    when.textContent = clock(caption.start) + ' ';
    item.append(when, caption.text);
    at('captions').append(item);
    item.scrollIntoView({ block: 'nearest' });
  }
  if (answer.captions.length || !answer.is_signing) at('draft').textContent = '';
  if (answer.draft !== undefined) at('draft').textContent = answer.draft + ' …';
}

function off() {
  clearInterval(timer);
  camera?.getTracks().forEach((track) => track.stop());
  camera = timer = null;
  video.srcObject = null;
  show(false);
}

function lose(text) {
  off();
  visitor = null;
  at('draft').textContent = '';
  fail(text);
  at('start').focus();
}

async function stop() {
  const mine = visitor;
  if (mine === null) return;
  off();
  visitor = null;
  say('The camera is off.');
  at('start').focus({ preventScroll: true });
  const pictures = waiting.splice(0, atOnce);
  waiting = [];
  while (sending) await new Promise((later) => setTimeout(later, 50)); // or the last request could overtake it
  try {
    draw(mine, await server.caption({ visitor: mine, pictures, is_behind: true, is_last: true }));
  } catch (error) {
    fail('The server cannot be reached; the last sentence is lost.');
  }
}

at('start').addEventListener('click', async () => {
  fail('');
  try {
    camera = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 25 }, facingMode: 'user' },
    });
  } catch (error) {
    return fail('The camera cannot be used: ' + error.message + '.');
  }
  camera.getVideoTracks()[0].addEventListener('ended', () => visitor !== null && lose('The camera is gone.'));
  video.srcObject = camera;
  video.play();
  at('captions').replaceChildren();
  at('dropped').textContent = '';
  visitor = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
  waiting = [];
  dropped = 0;
  began = performance.now();
  timer = setInterval(takePicture, 1000 / perSecond);
  show(true);
  at('stop').focus();
  say('The camera is on. Sign, then rest your hands.');
});

at('stop').addEventListener('click', stop);
if (!navigator.mediaDevices?.getUserMedia) {
  at('start').disabled = true;
  say('This browser lends its camera to https and localhost only.');
}
